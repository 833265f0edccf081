package adjudication

// matchMember stops a claim that isn't for one of this payer's members.
func matchMember(r *run) {
	switch r.in.Member.Match {
	case MatchOne:
	case MatchAmbiguous:
		r.stop(nil, memberAmbiguous)
	case MatchNotOurs:
		r.denyAll(memberNotOurs)
	default:
		r.denyAll(memberNotFound)
	}
}
