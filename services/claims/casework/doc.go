// Package casework holds the rules of the work on claims that can't be decided
// at once: what is asked of others, who has the task, how many must agree,
// appeals, and the prompt-pay clock. It is pure: the time is passed in, and
// every answer follows from the events of the claim's own stream.
//
// A workflow wakes the claims service when a deadline may have come; it knows
// nothing that isn't here. Started again from the log it finds the same
// deadlines, because they stand in the events.
//
// The work on one claim:
//
//	state          entered by                            left by                               to
//	-              ClaimDecided paid or denied           AppealFiled                           appealed
//	open           ClaimDecided pended                   TaskClaimed                           held
//	               TaskReleased                          InformationRequested of the provider  waiting
//	               InformationReceived, last one         second ReviewProposed, they differ    open, escalated
//	               InformationExpired, more to judge     ReviewProposed, first of two          open, one opinion
//	                                                     ClaimReviewed                         -
//	held           TaskClaimed                           TaskReleased, request or deadline     open
//	                                                     ClaimReviewed                         -
//	waiting        InformationRequested of the provider  InformationReceived, engine decides   -
//	(clock         (sent by itself where the engine      InformationReceived, person judges    open
//	stopped)       pends for nothing else)               InformationExpired, nothing else      - (denied)
//	                                                     InformationExpired, more to judge     open, escalated
//	appealed       AppealFiled                           AppealDecided upheld                  -, next level open
//	                                                     AppealDecided overturned              - (decided again)
//	                                                     AppealOverdue                         appealed, next level open
//	                                                     another decision                      - (moot)
//
// A request for prior authorisation is the payer's own to answer: it doesn't
// stop the clock, the task stays on the list, and when its time passes it is
// escalated instead of held against the provider.
//
// Escalation rises by one for each cause, once: the prompt-pay day is near,
// it has passed, an authorisation is overdue, reviewers differ, information
// expired while other doubts remain, somebody asked for it.
package casework
