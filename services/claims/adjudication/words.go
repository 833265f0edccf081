package adjudication

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/money"
)

// ClauseWords says in plain words which clause of a plan, contract or fee
// schedule an Adjustment.Clause names, e.g. "the plan's deductible in network"
// for "costShare.inNetwork.deductible". A plan rule's clause is the plan's own
// wording; a name that isn't known is returned as it is.
func ClauseWords(clause string) string {
	if words, ok := clauses[clause]; ok {
		return words
	}
	head, rest, _ := strings.Cut(clause, ".")
	switch head {
	case "costShare": // tiers.<tier>.<part>
		if tier, part, ok := strings.Cut(strings.TrimPrefix(rest, "tiers."), "."); ok && strings.HasPrefix(rest, "tiers.") {
			return "the plan's " + part + " in tier " + tier
		}
	case "benefits": // <benefit>[.tiers.<tier>][.<part>]
		name, part, _ := strings.Cut(rest, ".")
		of := "benefit " + name
		if in, ok := strings.CutPrefix(part, "tiers."); ok {
			tier, last, _ := strings.Cut(in, ".")
			part, of = last, of+" in tier "+tier
		}
		if words, ok := benefitParts[part]; ok {
			return fmt.Sprintf(words, of)
		}
	case "facilityRates":
		return "the contract's facility rate " + rest
	case "rules": // <id>: <the plan's words>
		if id, text, ok := strings.Cut(rest, ": "); ok {
			return "the plan's rule " + id + ": " + text
		}
	}
	return clause
}

var clauses = map[string]string{
	"costShare.inNetwork.deductible":     "the plan's deductible in network",
	"costShare.inNetwork.coinsurance":    "the plan's coinsurance in network",
	"costShare.outOfNetwork.deductible":  "the plan's deductible out of network",
	"costShare.outOfNetwork.coinsurance": "the plan's coinsurance out of network",
	"benefits":                           "the plan's list of benefits",
	"feeSchedule.fees":                   "the fee schedule's fee for the procedure",
	"feeSchedule.fees.maxUnits":          "the fee schedule's most units of the procedure",
	"feeSchedule.fees.baseUnits":         "the fee schedule's anaesthesia units",
	"feeSchedule.defaultBpsOfCharge":     "the fee schedule's share of the charge, for a procedure without a fee",
	"contract.capitated":                 "the contract pays the provider by the head",
	"coordination.carve_out":             "the plan subtracts what other payers paid (carve-out)",
	"sequestrationBps":                   "the plan's sequestration",
	"multipleProcedureBps":               "the plan's share for a day's further procedures",
	"timelyFilingDays":                   "the plan's filing limit",
	"outOfNetwork":                       "the plan pays nothing out of network",
	"priorAuthorizationProcedures":       "the plan's list of procedures that need prior authorisation",
}

// benefitParts are put together with "benefit <name>".
var benefitParts = map[string]string{
	"":                   "%s of the plan",
	"copay":              "the copay of %s",
	"coinsurance":        "the coinsurance of %s",
	"visitsPerYear":      "the visits a year of %s",
	"dollarsPerYear":     "the yearly maximum of %s",
	"lifetime":           "the lifetime maximum of %s",
	"diagnosisPrefixes":  "the diagnoses that %s is for",
	"priorAuthorization": "%s needs prior authorisation",
	"documentRequired":   "%s needs a document",
	"review":             "%s is reviewed",
	"specialist":         "%s needs a referral",
}

// FactWords says a figure behind a reason in plain words. Key and value are
// those of Adjustment.facts; the key's ending tells its unit: "_cents", "_bps"
// (basis points), "_milli" (thousandths of a unit), "_date".
func FactWords(key, value string) string {
	if key == "modifier_indicator" {
		switch value {
		case "0":
			return "no modifier lets the two be paid side by side"
		case "1":
			return "a modifier would let the two be paid side by side"
		}
	}
	name, amount := key, value
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil { // a date
		name = strings.TrimSuffix(key, "_date")
	} else if of, ok := strings.CutSuffix(key, "_cents"); ok {
		name, amount = of, money.Cents(n).String()
	} else if of, ok := strings.CutSuffix(key, "_bps"); ok {
		name, amount = of, decimal(n, 100)+" %"
	} else if of, ok := strings.CutSuffix(key, "_milli"); ok {
		name, amount = of, decimal(n, 1000)
	}
	if words, ok := figures[key]; ok {
		return fmt.Sprintf(words, amount)
	}
	return strings.ReplaceAll(name, "_", " ") + " " + amount
}

// figures are those whose key alone reads badly.
var figures = map[string]string{
	"fee_bps":                       "allowed at %s of the fee",
	"charge_bps":                    "allowed at %s of the charge",
	"share_bps":                     "reduced to %s",
	"payable_milli":                 "units priced %s",
	"units_milli":                   "units billed %s",
	"day_units_milli":               "units billed for the day %s",
	"limit_units":                   "most units %s",
	"limit_visits":                  "most visits %s",
	"used_visits":                   "visits used before %s",
	"used_cents":                    "used before %s",
	"used_milli":                    "units used before %s",
	"approved_milli":                "units approved %s",
	"before_cents":                  "before the reduction %s",
	"deductible_remaining_cents":    "deductible still to meet %s",
	"out_of_pocket_remaining_cents": "to the out-of-pocket maximum %s",
	"limit_remaining_cents":         "left of the limit %s",
	"coverage_start_date":           "covered from %s",
	"coverage_end_date":             "covered until %s",
	"provider_died_date":            "provider died %s",
	"provider_inactive_from_date":   "provider inactive from %s",
	"filing_limit_days":             "to be filed within %s days",
	"filed_after_days":              "filed after %s days",
	"paired_line":                   "the other service is line %s",
	"earlier_line":                  "the other service is line %s of an earlier claim",
}

// decimal writes n/unit without trailing zeros.
func decimal(n, unit int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	digits := len(strconv.FormatInt(unit, 10)) - 1
	return sign + strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%0*d", n/unit, digits, n%unit), "0"), ".")
}

// networkWords says where a share or a posting counts; see Key.NetworkName.
func networkWords(network string) string {
	switch tier, named := strings.CutPrefix(network, inTier); {
	case named:
		return "in network, tier " + tier
	case network == "in":
		return "in network"
	case network == "out":
		return "out of network"
	case network == "all":
		return "in all networks"
	}
	return "network " + network
}

// words says which of a family's accumulators a key names.
func (k Key) words() string {
	kind := k.KindName()
	switch k.Kind {
	case OutOfPocket:
		kind = "out-of-pocket maximum"
	case Visits:
		kind = "visits of benefit " + k.Benefit
	case Dollars:
		kind = "payments for benefit " + k.Benefit
	case Lifetime:
		kind = "lifetime payments for benefit " + k.Benefit
	}
	return fmt.Sprintf("%s %s %s", k.Scope, kind, networkWords(k.NetworkName()))
}
