// Package x12test makes 837 files for tests and load: people, providers and
// payers in them are made up, identifiers pass their check digits.
package x12test

import (
	"fmt"
	"strings"
)

// Provider is a billing provider of a made-up file.
type Provider struct {
	Name, NPI, TaxID string
}

// Lakeside is a billing provider whose NPI passes its check digit.
var Lakeside = Provider{Name: "LAKESIDE CLINIC", NPI: "1234567893", TaxID: "123456789"}

// Professional returns an 837P interchange of one transaction set with n
// claims, each of a subscriber of its own, about 400 bytes a claim. edit, when
// not nil, may change the segments of each claim (HL to the last line) before
// they are joined; the counts are made right afterwards.
func Professional(n int, edit func(i int, segments []string) []string) []byte {
	segs := []string{
		"BHT*0019*00*REF0001*20261121*0900*CH",
		"NM1*41*2*LAKESIDE BILLING*****46*SUB01", "PER*IC*DESK*TE*5550100000", "NM1*40*2*KEYSTONE HEALTH*****46*KEYSTONE",
		"HL*1**20*1", "PRV*BI*PXC*207Q00000X", "NM1*85*2*" + Lakeside.Name + "*****XX*" + Lakeside.NPI,
		"N3*1 LAKE RD", "N4*CLEVELAND*OH*441130000", "REF*EI*" + Lakeside.TaxID,
	}
	for i := range n {
		claim := Claim(i)
		if edit != nil {
			claim = edit(i, claim)
		}
		segs = append(segs, claim...)
	}
	return Interchange("000000905", "837", "005010X222A1", segs)
}

// Claim returns the segments of the i-th claim, from the subscriber's HL on.
func Claim(i int) []string {
	return []string{
		fmt.Sprintf("HL*%d*1*22*0", i+2), "SBR*P*18*GRP100******CI",
		fmt.Sprintf("NM1*IL*1*TESTER*PAT%d*Q***MI*MBR%06d", i, i), "N3*2 ELM ST", "N4*CLEVELAND*OH*44113", "DMG*D8*19800115*F",
		"NM1*PR*2*KEYSTONE HEALTH*****PI*KEYSTONE",
		fmt.Sprintf("CLM*ACCT%06d*150***11:B:1*Y*A*Y*Y", i), fmt.Sprintf("REF*D9*TRACE%06d", i), "HI*ABK:J209*ABF:E119",
		"LX*1", "SV1*HC:99213:25*100*UN*1***1:2", "DTP*472*D8*20261103", fmt.Sprintf("REF*6R*L%d-1", i),
		"LX*2", "SV1*HC:87070*50*UN*1***1", "DTP*472*D8*20261103",
	}
}

// Rich returns the body of a sound 837P set whose one claim uses most of what
// claims carry: a dependent, providers, another payer's decision, a drug.
func Rich() []string {
	return []string{
		"BHT*0019*00*REF0001*20261121*0900*CH",
		"NM1*41*2*LAKESIDE BILLING*****46*SUB01", "PER*IC*DESK*TE*5550100000", "NM1*40*2*KEYSTONE HEALTH*****46*KEYSTONE",
		"HL*1**20*1", "PRV*BI*PXC*207Q00000X", "NM1*85*2*" + Lakeside.Name + "*****XX*" + Lakeside.NPI, "N3*1 LAKE RD", "N4*CLEVELAND*OH*441130000", "REF*EI*123456789", "PER*IC*DESK*TE*5550100000",
		"NM1*87*2", "N3*PO BOX 1", "N4*CLEVELAND*OH*44113",
		"HL*2*1*22*1", "SBR*S**GRP100******CI", "NM1*IL*1*TESTER*ANN****MI*MBR000001", "N3*2 ELM ST", "N4*CLEVELAND*OH*44113", "DMG*D8*19800115*F",
		"NM1*PR*2*KEYSTONE HEALTH*****PI*KEYSTONE", "N3*9 KEY ST", "N4*CLEVELAND*OH*44113",
		"HL*3*2*23*0", "PAT*19", "NM1*QC*1*TESTER*KID", "N3*2 ELM ST", "N4*CLEVELAND*OH*44113", "DMG*D8*20150115*M",
		"CLM*ACCT000001*150***11:B:1*Y*A*Y*Y**OA", "DTP*439*D8*20261101", "AMT*F5*5", "REF*9F*R123", "REF*G1*A123", "REF*D9*TRACE1", "HI*ABK:J209*ABF:E119",
		"NM1*DN*1*WELBY*MARC****XX*1234567893", "NM1*82*1*KILDARE*JAMES****XX*1234567893", "PRV*PE*PXC*207Q00000X",
		"NM1*77*2*LAKESIDE EAST*****XX*1234567893", "N3*3 LAKE RD", "N4*CLEVELAND*OH*441130000",
		"SBR*P*19*******CI", "CAS*CO*45*20", "AMT*D*80", "OI***Y***Y", "NM1*IL*1*TESTER*BOB****MI*OTHER1", "NM1*PR*2*OTHER PLAN*****PI*OTHER", "DTP*573*D8*20261110",
		"LX*1", "SV1*HC:99213:25*100*UN*1***1:2**Y", "DTP*472*D8*20261101", "REF*6R*L1", "NTE*ADD*NOTE",
		"SVD*OTHER*80*HC:99213:25**1", "CAS*CO*45*20", "DTP*573*D8*20261110",
		"LX*2", "SV1*HC:J1550*50*UN*2.5*11**1", "DTP*472*RD8*20261101-20261103", "AMT*T*2", "LIN**N4*00026063512", "CTP****10*ML",
	}
}

// Stay returns the body of a sound 837I set whose one claim, of three nights,
// uses most of what institutional claims carry.
func Stay() []string {
	return []string{
		"BHT*0019*00*REF0001*20261121*0900*CH",
		"NM1*41*2*LAKESIDE BILLING*****46*SUB01", "PER*IC*DESK*TE*5550100000", "NM1*40*2*KEYSTONE HEALTH*****46*KEYSTONE",
		"HL*1**20*1", "PRV*BI*PXC*282N00000X", "NM1*85*2*LAKESIDE HOSPITAL*****XX*" + Lakeside.NPI, "N3*1 LAKE RD", "N4*CLEVELAND*OH*441130000", "REF*EI*123456789",
		"HL*2*1*22*0", "SBR*P*18*GRP100******CI", "NM1*IL*1*TESTER*ANN****MI*MBR000001", "N3*2 ELM ST", "N4*CLEVELAND*OH*44113", "DMG*D8*19800115*F",
		"NM1*PR*2*KEYSTONE HEALTH*****PI*KEYSTONE",
		"CLM*ACCT000001*7300***11:A:1**A*Y*Y", "DTP*096*TM*1130", "DTP*434*RD8*20261101-20261104", "DTP*435*DT*202611010815", "CL1*1*7*01", "REF*G1*A123", "REF*D9*TRACE1",
		"HI*ABK:M1711:::::::Y", "HI*ABJ:M25561", "HI*ABN:W1830XA:::::::N", "HI*DR:0470", "HI*ABF:I10:::::::Y*ABF:E119:::::::W", "HI*BBR:0SRD0J9:D8:20261101", "HI*BBQ:3E0T3BZ:D8:20261101",
		"HI*BI:74:RD8:20261102-20261103", "HI*BH:11:D8:20261020", "HI*BE:80:::3*BE:01:::1200", "HI*BG:38",
		"NM1*71*1*WELBY*MARC****XX*1234567893", "PRV*AT*PXC*207X00000X", "NM1*72*1*KILDARE*JAMES****XX*1245319599", "NM1*ZZ*1*HOUSE*GREG****XX*1245319599",
		"LX*1", "SV2*0120**3600*DA*3", "LX*2", "SV2*0278*HC:C1776*3000*UN*1**100", "DTP*472*D8*20261101", "LX*3", "SV2*0250**700*UN*14",
	}
}

// Interchange wraps the body of a transaction set, BHT to the last segment,
// in right envelopes.
func Interchange(control, set, version string, body []string) []byte {
	return Envelope(control, Group("1", version, Set(set, "0001", version, body)))
}

// Set wraps a body in ST and SE.
func Set(id, control, version string, body []string) []string {
	out := append([]string{"ST*" + id + "*" + control + "*" + version}, body...)
	return append(out, fmt.Sprintf("SE*%d*%s", len(out)+1, control))
}

// Group wraps transaction sets in GS and GE.
func Group(control, version string, sets ...[]string) []string {
	out := []string{"GS*HC*LAKESIDE*KEYSTONE*20261121*0900*" + control + "*X*" + version}
	for _, s := range sets {
		out = append(out, s...)
	}
	return append(out, fmt.Sprintf("GE*%d*%s", len(sets), control))
}

// Envelope wraps groups in ISA and IEA.
func Envelope(control string, groups ...[]string) []byte {
	out := []string{fmt.Sprintf("ISA*00*%10s*00*%10s*ZZ*%-15s*ZZ*%-15s*261121*0900*^*00501*%s*0*T*:", "", "", "LAKESIDE", "KEYSTONE", control)}
	for _, g := range groups {
		out = append(out, g...)
	}
	out = append(out, fmt.Sprintf("IEA*%d*%s", len(groups), control))
	return []byte(strings.Join(out, "~\n") + "~\n")
}
