package adjudication

// keys of a line's accumulators.
type keys struct {
	deductible, familyDeductible   Key
	outOfPocket, familyOutOfPocket Key
	visits, dollars, lifetime      Key
}

func (r *run) keys(l *line) keys {
	subject, tier := r.in.Member.Subject, ""
	if l.named != nil {
		tier = l.named.Name
	}
	return keys{
		deductible:        Key{Scope: Individual, Kind: Deductible, Network: l.tier, Tier: tier, PlanYear: l.yearly, Subject: subject},
		familyDeductible:  Key{Scope: Family, Kind: Deductible, Network: l.tier, Tier: tier, PlanYear: l.yearly},
		outOfPocket:       Key{Scope: Individual, Kind: OutOfPocket, Network: l.tier, Tier: tier, PlanYear: l.yearly, Subject: subject},
		familyOutOfPocket: Key{Scope: Family, Kind: OutOfPocket, Network: l.tier, Tier: tier, PlanYear: l.yearly},
		visits:            Key{Scope: Individual, Kind: Visits, Network: AllNetworks, PlanYear: l.yearly, Subject: subject, Benefit: l.benefit.Name},
		dollars:           Key{Scope: Individual, Kind: Dollars, Network: AllNetworks, PlanYear: l.yearly, Subject: subject, Benefit: l.benefit.Name},
		lifetime:          Key{Scope: Individual, Kind: Lifetime, Network: AllNetworks, Subject: subject, Benefit: l.benefit.Name},
	}
}

// postings adds a settled line to the family's accumulators: alone is the split
// as if no other payer were there, s what it came to.
func (r *run) postings(l *line, k *keys, s, alone *split) {
	// The deductible is credited as if this plan were alone, as the NAIC's
	// coordination of benefits model asks of a secondary plan; out of pocket
	// is what the patient really still owes.
	r.tally.post(k.deductible, alone.deductible)
	r.tally.post(k.familyDeductible, alone.deductible)
	r.tally.post(k.outOfPocket, s.share())
	r.tally.post(k.familyOutOfPocket, s.share())
	if l.benefit.VisitsPerYear > 0 && !r.counted(l) {
		r.tally.post(k.visits, 1)
		r.visited = append(r.visited, visit{l.benefit, l.ServiceDate})
	}
	if l.benefit.DollarsPerYear > 0 {
		r.tally.post(k.dollars, s.paid)
	}
	if l.benefit.LifetimeDollars > 0 {
		r.tally.post(k.lifetime, s.paid)
	}
}
