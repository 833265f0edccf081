package adjudication

// sequester takes the plan's share of a federal reduction off its payment. It
// comes last, from what would have been paid, and never becomes the patient's
// (Budget Control Act of 2011, section 251A; CMS, CARC 253).
func sequester(l *line, s *split) {
	if bps := l.plan.spec.SequestrationBps; bps > 0 {
		s.sequestered = portion(s.paid, bps, whole)
		s.paid -= s.sequestered
	}
}
