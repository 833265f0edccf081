// Package codes knows the code lists of health claims: what a code must look
// like, which codes Probity itself uses, and what they mean in plain words.
//
// The texts are Probity's own short wording, never the publishers' licensed
// descriptions (X12 owns those of CARC, RARC and claim status codes, the AMA
// those of CPT). A list here holds the codes that Probity may send, not all
// that exist: an unknown code from elsewhere is passed on, not refused.
// Procedure and diagnosis codes are checked by shape only.
package codes

import "strings"

// CARC returns the meaning of a claim adjustment reason code; ok is false
// when Probity never sends it.
func CARC(code string) (text string, ok bool) {
	text, ok = carcs[code]
	return text, ok
}

// RARC returns the meaning of a remittance advice remark code.
func RARC(code string) (text string, ok bool) {
	text, ok = rarcs[code]
	return text, ok
}

// PlaceOfService returns the name of a CMS place of service code; ok is false
// for a code CMS hasn't assigned.
func PlaceOfService(code string) (text string, ok bool) {
	text, ok = places[code]
	return text, ok
}

// StatusCategory returns the meaning of a claim status category code (277 STC01-1).
func StatusCategory(code string) (text string, ok bool) {
	text, ok = categories[code]
	return text, ok
}

// Status returns the meaning of a claim status code (277 STC01-2).
func Status(code string) (text string, ok bool) {
	text, ok = statuses[code]
	return text, ok
}

// GroupAllowed tells whether X12 lets a reason code stand under a group: some
// codes' usage notes name the only groups they go with (CARC list, X12 external
// code list 139). Decision page 0020 says how they were read.
func GroupAllowed(group, carc string) bool {
	only, limited := groupsOf[carc]
	return !limited || strings.Contains(only, group)
}

// groupsOf holds the reason codes whose usage note names their groups.
var groupsOf = map[string]string{
	"18": "OA", // CO only where a state's workers' compensation rules ask for it
	"23": "OA",
	"45": "CO PR",
}

// NeedsRemark tells whether a reason code must come with a remark code (RARC)
// that isn't an alert, as its usage note says.
func NeedsRemark(carc string) bool {
	switch carc {
	case "16", "96", "125", "129", "148", "226", "227", "234", "252", "A1":
		return true
	}
	return false
}

// Group returns the meaning of a claim adjustment group code (835 CAS01).
func Group(code string) (text string, ok bool) {
	text, ok = groups[code]
	return text, ok
}

// The tables are read only; the functions above are their one door.

var groups = map[string]string{
	"CO": "the provider's contractual duty; the patient may not be billed",
	"OA": "neither the provider's nor the patient's",
	"PI": "the payer's reduction; the patient may not be billed",
	"PR": "the patient's to pay",
}

var carcs = map[string]string{
	"1":   "deductible",
	"2":   "coinsurance",
	"3":   "copay",
	"4":   "modifier doesn't fit the procedure, or a needed one is missing",
	"11":  "the diagnosis pointed to doesn't fit the procedure",
	"15":  "the authorisation doesn't cover this service or provider",
	"16":  "something needed to decide is missing or wrong",
	"18":  "repeats a service already decided",
	"22":  "another payer must decide first",
	"23":  "taken up by what earlier payers paid or adjusted",
	"24":  "covered by the provider's capitation",
	"26":  "service came before coverage began",
	"27":  "service came after coverage ended",
	"29":  "filed too late",
	"31":  "the patient isn't one of this payer's members",
	"35":  "lifetime maximum of the benefit reached",
	"45":  "above the allowed amount",
	"49":  "routine or preventive service that the plan leaves out",
	"50":  "not medically necessary by the plan's rule",
	"59":  "reduced as one of several procedures of the day, or as concurrent anaesthesia",
	"96":  "not covered by the plan",
	"97":  "included in the payment for another service",
	"109": "sent to the wrong payer",
	"110": "billed before the service took place",
	"119": "maximum of the benefit for this period reached",
	"146": "diagnosis code not valid on the date of service",
	"147": "no rate on file for the service",
	"151": "more units than the record supports",
	"167": "diagnosis isn't covered",
	"170": "not payable to this type of provider",
	"171": "not payable to this type of provider in this type of place",
	"177": "patient hasn't met what eligibility asks for",
	"179": "patient hasn't met the waiting time",
	"181": "procedure code not valid on the date of service",
	"182": "modifier not valid on the date of service",
	"185": "rendering provider not eligible for the service",
	"197": "prior authorisation is missing",
	"198": "prior authorisation is used up",
	"204": "the plan has no benefit for the service",
	"206": "National Provider Identifier is missing",
	"207": "National Provider Identifier is malformed",
	"208": "National Provider Identifier isn't known",
	"216": "denied on review",
	"222": "above the contract's maximum units",
	"231": "can't be done together on one day",
	"236": "can't be combined with another procedure of the day",
	"242": "provider is out of network",
	"252": "a document is needed",
	"253": "sequestration of federal payment",
	"256": "not payable under the managed care contract",
	"272": "the plan's guidelines weren't met",
	"273": "the plan's guidelines were exceeded",
	"288": "referral is missing",
	"B20": "given, in part or whole, by another provider",
	"B7":  "provider wasn't certified on the date of service",
}

var rarcs = map[string]string{
	"M15":   "part of a service paid together",
	"M50":   "revenue code is missing or wrong",
	"M51":   "procedure code is missing or wrong",
	"M52":   "first date of service is missing or wrong",
	"M53":   "units are missing or wrong",
	"M54":   "total charge is missing or wrong",
	"M59":   "last date of service is missing or wrong",
	"M62":   "authorisation number is missing or wrong",
	"M76":   "diagnosis is missing or wrong",
	"M77":   "place of service is missing or wrong",
	"M79":   "charge is missing or wrong",
	"MA30":  "type of bill is missing or wrong",
	"MA31":  "first or last day of the period billed is missing or wrong",
	"MA32":  "number of covered days is missing or wrong",
	"MA40":  "admission date is missing or wrong",
	"MA41":  "type of admission is missing or wrong",
	"MA42":  "source of admission is missing or wrong",
	"MA43":  "patient's status is missing or wrong",
	"N253":  "attending provider's identifier is missing or wrong",
	"MA04":  "the other payer's identity or decision is needed",
	"MA130": "nothing could be decided; send a new, complete claim",
	"N30":   "patient isn't eligible for the service",
	"N56":   "procedure code isn't valid for the service or its date",
	"N130":  "see the plan's benefit document",
	"N152":  "replacement information is missing or wrong",
	"N257":  "billing provider's identifier is missing or wrong",
	"N290":  "rendering provider's identifier is missing or wrong",
	"N362":  "more days or units than is payable",
	"N382":  "patient identifier is missing or wrong",
	"N418":  "send the claim to the right payer",
	"N519":  "modifiers can't be combined so",
	"N522":  "the same service was submitted before",
	"N706":  "document is missing",
}

var categories = map[string]string{
	"A0": "forwarded to another party",
	"A1": "received, not yet accepted",
	"A2": "accepted for adjudication",
	"A3": "returned as unprocessable",
	"A4": "not found",
	"A6": "rejected: information is missing",
	"A7": "rejected: information is invalid",
	"A8": "rejected: parts contradict each other",
	"D0": "no such claim",
	"E0": "the request itself is in error",
	"E1": "the answering system is away",
	"F0": "finalised",
	"F1": "finalised and paid",
	"F2": "finalised and denied",
	"F3": "finalised and revised",
	"F4": "finalised, no payment due",
	"P0": "pending",
	"P1": "pending: being decided",
	"P2": "pending: under review",
	"P3": "pending: something was asked of the provider",
	"P4": "pending: something was asked of the patient",
	"P5": "pending: the payer itself waits",
}

var statuses = map[string]string{
	"0":   "no further status by this channel",
	"1":   "see the remittance advice",
	"3":   "decided, waits for the payment cycle",
	"16":  "passed on to the entity",
	"19":  "receipt acknowledged by the entity",
	"20":  "accepted for processing",
	"21":  "information missing or invalid",
	"29":  "subscriber and policy don't belong together",
	"33":  "subscriber not found",
	"35":  "claim not found",
	"46":  "under internal review",
	"54":  "repeats an earlier claim or line",
	"65":  "paid",
	"84":  "service not authorised",
	"88":  "patient not eligible on the dates of service",
	"97":  "patient not found with the payer",
	"104": "processed by the plan's provisions",
	"107": "processed by the contract's provisions",
	"116": "sent to the wrong payer",
	"125": "entity's name",
	"158": "entity's birth date",
	"164": "entity's member number",
	"178": "charges",
	"187": "dates of service",
	"249": "place of service",
	"252": "authorisation number",
	"255": "diagnosis code",
	"400": "the claim's amounts don't balance",
	"453": "modifier",
	"454": "procedure code",
	"476": "units of service",
	"562": "entity's National Provider Identifier",
	"732": "information contradicts the billing rules",
}

var places = map[string]string{
	"01": "pharmacy",
	"02": "telehealth, patient not at home",
	"03": "school",
	"04": "homeless shelter",
	"05": "Indian Health Service, free-standing",
	"06": "Indian Health Service, with a provider",
	"07": "tribal facility, free-standing",
	"08": "tribal facility, with a provider",
	"09": "prison or correctional facility",
	"10": "telehealth, patient at home",
	"11": "office",
	"12": "home",
	"13": "assisted living",
	"14": "group home",
	"15": "mobile unit",
	"16": "temporary lodging",
	"17": "walk-in retail clinic",
	"18": "place of employment",
	"19": "outpatient hospital, off campus",
	"20": "urgent care",
	"21": "inpatient hospital",
	"22": "outpatient hospital, on campus",
	"23": "emergency room",
	"24": "ambulatory surgery centre",
	"25": "birthing centre",
	"26": "military treatment facility",
	"27": "outreach site or street",
	"31": "skilled nursing facility",
	"32": "nursing facility",
	"33": "custodial care",
	"34": "hospice",
	"41": "ambulance, land",
	"42": "ambulance, air or water",
	"49": "independent clinic",
	"50": "federally qualified health centre",
	"51": "inpatient psychiatric facility",
	"52": "psychiatric day hospital",
	"53": "community mental health centre",
	"54": "intermediate care for intellectual disability",
	"55": "residential substance abuse treatment",
	"56": "residential psychiatric treatment",
	"57": "non-residential substance abuse treatment",
	"58": "opioid treatment programme, not residential",
	"60": "mass immunisation centre",
	"61": "inpatient rehabilitation",
	"62": "outpatient rehabilitation",
	"65": "dialysis facility",
	"66": "programme of all-inclusive care for the elderly",
	"71": "public health clinic",
	"72": "rural health clinic",
	"81": "independent laboratory",
	"99": "other place",
}
