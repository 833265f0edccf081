package claimfile

// SpanClaims is what the span test asks.
var SpanClaims = spanClaims
