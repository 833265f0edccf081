package claims

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/views"
)

// projectionVersion rises with every change of what apply yields.
const projectionVersion = 9

// The view's keys. A row's parts are what events told of it, encoded messages
// that are joined when read. They are fields <id>.<part> of one hash a kind and
// shard, so that what hundreds of commits say of their rows is one command. An
// index is a sorted set of row ids. All of it is opaque ids, codes, dates and
// amounts.
//
//	row:claims                    r received, d decided, v voided or replaced, w whom it waits for, m remitted: ClaimSummary parts
//	row:files                     f received: File; n outcomes, and np, nd, nw, nr the paid, denied, waiting, refused among them; t time of the last; x not processed; c completed: File
//	row:remittances               i issued: Remittance without its claims; v voided
//	row:payments                  i intended: Payment; s, c, x, q, v: parts of what came after
//	row:changes                   p proposed, a approved, d done: Change; in the index changes:payer:<p>
//	<kind>:all|org:<o>|payer:<p>  ids by recorded time; kind is claims, pended, files, remittances, payments
//	claims:file:<f>               claim ids by ordinal
//	remittances:file:<f>          remittance ids by recorded time
//	unremitted:payer:<p>          ids of claims with something to tell the provider, by recorded time
//	unpaid:payer:<p>              ids of issued remittances that pay and have no payment, by recorded time
//	paying:payer:<p>              ids of payments intended, or failed, decided on and not voided, by recorded time
//	read:<ref>                    ids of claims whose decision, final or pended, read a version, by recorded time
//	uncontracted:<p>:<npi>        ids of claims for which no contract listed the NPI
//	wanting:<p>                   ids of claims that wait for a version of a plan or fee schedule
//	nomember:<subscriber>         ids of claims denied because the patient was no member
//	waiting:<subscriber>          ids of a family's claims that wait
const (
	kindClaims      = "claims"
	kindPended      = "pended"
	kindFiles       = "files"
	kindRemittances = "remittances"
	kindUnremitted  = "unremitted"
	kindPayments    = "payments"
	kindUnpaid      = "unpaid"
	kindPaying      = "paying"
	kindChanges     = "changes"
)

func rowsKey(kind string) string {
	switch kind { // more parts of the same rows
	case kindWork:
		kind = kindClaims
	case kindPaymentTasks:
		kind = kindPayments
	}
	return "row:" + kind
}
func rowField(id, part string) string  { return id + "." + part }
func allIndex(kind string) string      { return kind + ":all" }
func orgIndex(kind, org string) string { return kind + ":org:" + org }
func payerIndex(kind, p string) string { return kind + ":payer:" + p }
func readIndex(ref string) string      { return "read:" + ref }
func noMemberIndex(sub string) string  { return "nomember:" + sub }
func waitingIndex(sub string) string   { return "waiting:" + sub }
func wantingIndex(p string) string     { return "wanting:" + p }
func uncontractedIndex(p, npi string) string {
	return "uncontracted:" + p + ":" + npi
}
func fileIndex(kind, file string) string { return kind + ":file:" + file }

// Projection is the lists of claims, files and remittances. Each claim that
// an event is about is told to changed, when that is not nil: it wakes those
// who wait, and must not fail.
func Projection(changed func(claimID string)) views.Projection {
	types := typeNames(
		&eventsv1.ClaimReceived{}, &eventsv1.ClaimDecided{}, &eventsv1.ClaimReversed{}, &eventsv1.ClaimReaffirmed{}, &eventsv1.ClaimRemitted{},
		&eventsv1.FileReceived{}, &eventsv1.FileOutcomesRecorded{}, &eventsv1.FileCompleted{}, &eventsv1.FileCancelRequested{}, &eventsv1.FileCanceled{}, &eventsv1.RemittanceIssued{},
		&eventsv1.ChangeProposed{}, &eventsv1.ChangeApproved{}, &eventsv1.ChangeReprocessed{},
		&eventsv1.TaskClaimed{}, &eventsv1.TaskReleased{}, &eventsv1.TaskEscalated{}, &eventsv1.ReviewProposed{},
		&eventsv1.InformationRequested{}, &eventsv1.InformationReceived{}, &eventsv1.InformationExpired{},
		&eventsv1.AppealFiled{}, &eventsv1.AppealDecided{}, &eventsv1.AppealOverdue{},
		&eventsv1.ClaimRemittanceVoided{}, &eventsv1.RemittanceVoided{},
		&eventsv1.PaymentIntended{}, &eventsv1.PaymentSent{}, &eventsv1.PaymentConfirmed{}, &eventsv1.PaymentFailed{}, &eventsv1.PaymentVoided{},
		&eventsv1.PaymentTaskAssigned{}, &eventsv1.PaymentTaskReminded{}, &eventsv1.PaymentTaskEscalated{}, &eventsv1.PayeeReleased{}, &eventsv1.PaymentResolved{},
	)
	return views.Projection{
		Name: "claims", Version: projectionVersion, Log: logName, Types: types,
		Apply: func(ops []views.Op, r eventstore.Recorded) ([]views.Op, error) {
			ops, claim, err := apply(ops, r)
			if err == nil {
				var of string
				if ops, of, err = workOps(ops, r); claim == "" {
					claim = of
				}
			}
			if claim != "" && changed != nil {
				changed(claim)
			}
			return ops, err
		},
	}
}

// withoutSealed decodes what lists look at: most of a claim's events is sealed,
// and none of that is.
func withoutSealed(c eventstore.Codec) eventstore.Codec {
	return c.Leaving(&eventsv1.ClaimReceived{}, "claim").Leaving(&eventsv1.ClaimDecided{}, "decision", "decision_sha256", "received_time")
}

// listedOf is the store as the lists follow it.
func listedOf(s eventstore.Store) eventstore.Store {
	if r, ok := s.(interface {
		Leaving(func(eventstore.Codec) eventstore.Codec) eventstore.Store
	}); ok {
		return r.Leaving(withoutSealed)
	}
	return s
}

// typeNames are what the ledger calls events.
func typeNames(events ...proto.Message) []string {
	out := make([]string, len(events))
	for i, m := range events {
		out[i] = string(m.ProtoReflect().Descriptor().FullName())
	}
	return out
}

// apply is the projection: it appends commands for one event, and names the
// claim it is about.
func apply(ops []views.Op, r eventstore.Recorded) (_ []views.Op, claim string, err error) {
	at := r.RecordedTime.UnixMilli()
	switch e := r.Event.(type) {
	case *eventsv1.ClaimReceived:
		ops, err = row(ops, kindClaims, e.GetClaimId(), "r", summaryOfReceived(e))
		ops = index(ops, kindClaims, e.GetSubmitterOrg(), e.GetPayerId(), at, e.GetClaimId())
		if e.GetFileId() != "" {
			ops = append(ops, views.ZAdd(fileIndex(kindClaims, e.GetFileId()), int64(e.GetFileOrdinal()), e.GetClaimId()))
		}
		return ops, e.GetClaimId(), err
	case *eventsv1.ClaimDecided:
		ops, err = row(ops, kindClaims, e.GetClaimId(), "d", summaryOfDecided(e, r.Position, r.Revision))
		if e.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
			ops = index(ops, kindPended, e.GetSubmitterOrg(), e.GetPayerId(), at, e.GetClaimId())
			ops = append(ops, views.ZAdd(waitingIndex(e.GetSubscriber()), at, e.GetClaimId()))
			if wantsDocument(e.GetPendReasons()) {
				ops = append(ops, views.ZAdd(wantingIndex(e.GetPayerId()), at, e.GetClaimId()))
			}
		} else if r.Revision > 1 {
			// Not the first decision: the one before it left the claim waiting.
			ops = unindex(ops, kindPended, e.GetSubmitterOrg(), e.GetPayerId(), e.GetClaimId())
			ops = append(ops, views.ZRem(waitingIndex(e.GetSubscriber()), e.GetClaimId()), views.ZRem(wantingIndex(e.GetPayerId()), e.GetClaimId()))
		}
		ops = providerDayOps(ops, e)
		return decidedIndexes(ops, e, at), e.GetClaimId(), err
	case *eventsv1.ClaimReaffirmed:
		return readOps(ops, e.GetClaimId(), e.GetPayerId(), e.GetVersions(), e.GetUncontractedNpis(), at), "", nil
	case *eventsv1.ClaimReversed:
		ops, err = reversedOps(ops, e, r)
		return providerDayOps(ops, e), e.GetClaimId(), err
	case *eventsv1.ClaimRemitted:
		ops, err = row(ops, kindClaims, e.GetClaimId(), "m", summaryOfRemitted(e, r.Revision))
		if !e.GetMore() {
			ops = append(ops, views.ZRem(payerIndex(kindUnremitted, e.GetPayerId()), e.GetClaimId()))
		}
		return ops, e.GetClaimId(), err
	case *eventsv1.ClaimRemittanceVoided:
		if !e.GetSuperseded() {
			ops, err = row(ops, kindClaims, e.GetClaimId(), "m", summaryOfRemitted(nil, r.Revision))
		}
		return append(ops, views.ZAdd(payerIndex(kindUnremitted, e.GetPayerId()), at, e.GetClaimId())), e.GetClaimId(), err
	case *eventsv1.FileReceived:
		f := fileOfReceived(e, r)
		f.Problems = nil // may be long; they stand in the file's stream
		ops, err = row(ops, kindFiles, f.GetFileId(), "f", f)
		ops = index(ops, kindFiles, f.GetSubmitterOrg(), "", at, f.GetFileId())
	case *eventsv1.FileOutcomesRecorded:
		key, id := rowsKey(kindFiles), fileOfStream(r.Stream)
		ops = append(ops, views.HIncr(key, rowField(id, "n"), int64(len(e.GetOutcomes()))), views.HSet(key, rowField(id, "t"), strconv.FormatInt(at, 10)))
		ops = outcomeOps(ops, key, id, e.GetOutcomes())
	case *eventsv1.FileCompleted:
		ops, err = row(ops, kindFiles, fileOfStream(r.Stream), "c",
			&claimsv1.File{State: claimsv1.FileState_FILE_STATE_COMPLETE, RemittanceIds: bounded(e.GetRemittanceIds(), 200)})
	case *eventsv1.FileCancelRequested:
		ops, err = row(ops, kindFiles, fileOfStream(r.Stream), "c", &claimsv1.File{State: claimsv1.FileState_FILE_STATE_CANCELING})
	case *eventsv1.FileCanceled:
		key, id, rest := rowsKey(kindFiles), fileOfStream(r.Stream), countRuns(e.GetNotProcessed())
		ops, err = row(ops, kindFiles, id, "c", &claimsv1.File{State: claimsv1.FileState_FILE_STATE_CANCELED, RemittanceIds: bounded(e.GetRemittanceIds(), 200)})
		if rest > 0 {
			ops = append(ops, views.HSet(key, rowField(id, "x"), strconv.FormatInt(rest, 10)), views.HSet(key, rowField(id, "t"), strconv.FormatInt(at, 10)))
		}
	case *eventsv1.RemittanceIssued:
		if len(e.GetRemittance().GetClaimIds()) == 0 {
			break // every planned claim went into another run's
		}
		m := proto.CloneOf(e.GetRemittance())
		m.ClaimCount = uint32(len(m.GetClaimIds()))
		m.ClaimIds, m.Position = nil, positionProto(r.Position)
		ops, err = row(ops, kindRemittances, m.GetRemittanceId(), "i", m)
		ops = index(ops, kindRemittances, m.GetSubmitterOrg(), m.GetPayerId(), at, m.GetRemittanceId())
		if m.GetFileId() != "" {
			ops = append(ops, views.ZAdd(fileIndex(kindRemittances, m.GetFileId()), at, m.GetRemittanceId()))
		}
		if m.GetPaidCents() > 0 {
			ops = append(ops, views.ZAdd(payerIndex(kindUnpaid, m.GetPayerId()), at, m.GetRemittanceId()))
		}
	case *eventsv1.RemittanceVoided:
		ops, err = row(ops, kindRemittances, e.GetRemittanceId(), "v", &claimsv1.Remittance{Voided: true})
	case *eventsv1.ChangeProposed:
		ops, err = changeOps(ops, "p", e.GetChange(), r)
	case *eventsv1.ChangeApproved:
		ops, err = row(ops, kindChanges, e.GetChangeId(), "a", &claimsv1.Change{State: claimsv1.ChangeState_CHANGE_STATE_APPROVED})
	case *eventsv1.ChangeReprocessed:
		ops, err = changeOps(ops, "d", e.GetChange(), r)
	default:
		ops, err = paymentOps(ops, r, at)
	}
	return ops, "", err
}

// decidedIndexes are what finds a decision again: to remit it, and to make it
// again when what it read has changed.
func decidedIndexes(ops []views.Op, e *eventsv1.ClaimDecided, at int64) []views.Op {
	switch e.GetStatus() {
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED:
		ops = append(ops, views.ZAdd(payerIndex(kindUnremitted, e.GetPayerId()), at, e.GetClaimId()))
	case claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
	default:
		return ops
	}
	ops = readOps(ops, e.GetClaimId(), e.GetPayerId(), e.GetVersions(), e.GetUncontractedNpis(), at)
	if slices.Contains(e.GetCodes(), codeNoMember) {
		ops = append(ops, views.ZAdd(noMemberIndex(e.GetSubscriber()), at, e.GetClaimId()))
	}
	return ops
}

// readOps put a claim into the indexes of what its decision read, and of
// whom it found no contract by.
func readOps(ops []views.Op, claim, payer string, v *claimsv1.Versions, uncontracted []string, at int64) []views.Op {
	for _, npi := range uncontracted {
		ops = append(ops, views.ZAdd(uncontractedIndex(payer, npi), at, claim))
	}
	for _, list := range readLists(v) {
		for ref := range strings.SplitSeq(list, ",") {
			if ref != "" {
				ops = append(ops, views.ZAdd(readIndex(ref), at, claim))
			}
		}
	}
	return ops
}

// changeOps put what is recorded of a change into its row.
func changeOps(ops []views.Op, field string, c *claimsv1.Change, r eventstore.Recorded) ([]views.Op, error) {
	c = proto.CloneOf(c)
	c.Time = millis(r.RecordedTime.UnixMilli())
	ops, err := row(ops, kindChanges, c.GetChangeId(), field, c)
	return append(ops, views.ZAdd(payerIndex(kindChanges, c.GetPayerId()), r.RecordedTime.UnixMilli(), c.GetChangeId())), err
}

// changeRow is how a change stands: the last thing recorded of it.
func changeRow(fields map[string]string) (*claimsv1.Change, error) {
	out := &claimsv1.Change{}
	if _, done := fields["d"]; done {
		return out, part(fields, "d", out)
	}
	if err := part(fields, "p", out); err != nil {
		return nil, err
	}
	return out, part(fields, "a", out)
}

// codeNoMember is PR-31: the patient can't be identified as our insured.
const codeNoMember = "PR-31"

// reversedOps take a decision's traces out of the lists. Where another
// decision follows in the same commit, that one's are put in after it.
func reversedOps(ops []views.Op, e *eventsv1.ClaimReversed, r eventstore.Recorded) ([]views.Op, error) {
	// The remittance that told the decision doesn't tell what stands now.
	ops = append(ops, views.HDel(rowsKey(kindClaims), rowField(e.GetClaimId(), "m")))
	if !endsClaim(e) {
		return ops, nil
	}
	ops, err := row(ops, kindClaims, e.GetClaimId(), "v", summaryOfReversed(r.Revision))
	unremitted := payerIndex(kindUnremitted, e.GetPayerId())
	if e.GetRemitted() {
		return append(ops, views.ZAdd(unremitted, r.RecordedTime.UnixMilli(), e.GetClaimId())), err
	}
	return append(ops, views.ZRem(unremitted, e.GetClaimId())), err
}

// row sets one part of a row.
func row(ops []views.Op, kind, id, field string, part proto.Message) ([]views.Op, error) {
	b, err := encode(part)
	if err != nil {
		return ops, err
	}
	return append(ops, views.HSet(rowsKey(kind), rowField(id, field), string(b))), nil
}

// part reads one part of a row into m, joining it to what is there.
func part(fields map[string]string, field string, m proto.Message) error {
	text, ok := fields[field]
	if !ok {
		return nil
	}
	if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal([]byte(text), m); err != nil {
		return defect("claims.view.row", "a row of the lists can't be read; drop the view and let it be built again")
	}
	return nil
}

func index(ops []views.Op, kind, org, payer string, at int64, id string) []views.Op {
	ops = append(ops, views.ZAdd(allIndex(kind), at, id))
	if org != "" {
		ops = append(ops, views.ZAdd(orgIndex(kind, org), at, id))
	}
	if payer != "" {
		ops = append(ops, views.ZAdd(payerIndex(kind, payer), at, id))
	}
	return ops
}

func unindex(ops []views.Op, kind, org, payer, id string) []views.Op {
	return append(ops, views.ZRem(allIndex(kind), id), views.ZRem(orgIndex(kind, org), id), views.ZRem(payerIndex(kind, payer), id))
}

// rowParts are the parts of a kind's rows.
var rowParts = map[string][]string{
	kindClaims:      {"r", "d", "v", "w", "m"},
	kindFiles:       {"f", "c", "n", "np", "nd", "nw", "nr", "t", "x"},
	kindRemittances: {"i", "v"},
	kindWork:        {"r", "d", "v", "w", "m", "a", "h", "e", "o", "n", "u", "p", "l"},
	kindChanges:     {"p", "a", "d"},
	kindPayments:    {"i", "s", "c", "x", "q", "v"},

	kindPaymentTasks: {"i", "s", "c", "x", "q", "v", "a", "l", "d", "e", "h", "n"},
}

// claimRow joins a claim's row.
func claimRow(fields map[string]string) (*claimsv1.ClaimSummary, error) {
	out := &claimsv1.ClaimSummary{}
	for _, f := range rowParts[kindClaims] {
		if err := part(fields, f, out); err != nil {
			return nil, err
		}
	}
	standingAmounts(out)
	out.NextActor = nextActor(out)
	return out, nil
}

// outcomeParts are the parts of a file's row that count its outcomes by status.
var outcomeParts = map[claimsv1.ClaimStatus]string{
	claimsv1.ClaimStatus_CLAIM_STATUS_PAID: "np", claimsv1.ClaimStatus_CLAIM_STATUS_DENIED: "nd",
	claimsv1.ClaimStatus_CLAIM_STATUS_PENDED: "nw", claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED: "nr",
}

func outcomeOps(ops []views.Op, key, id string, outcomes []*claimsv1.ClaimOutcome) []views.Op {
	counts := map[string]int64{}
	for _, o := range outcomes {
		counts[outcomeParts[o.GetStatus()]]++
	}
	for _, p := range slices.Sorted(maps.Keys(counts)) {
		if p != "" {
			ops = append(ops, views.HIncr(key, rowField(id, p), counts[p]))
		}
	}
	return ops
}

// fileRow joins a file's row.
func fileRow(fields map[string]string) (*claimsv1.File, error) {
	out := &claimsv1.File{}
	for _, f := range []string{"f", "c"} {
		if err := part(fields, f, out); err != nil {
			return nil, err
		}
	}
	count := func(part string) uint32 {
		n, _ := strconv.ParseUint(fields[part], 10, 32)
		return uint32(n)
	}
	n := count("n")
	out.OutcomeCount = n
	out.PaidCount, out.DeniedCount, out.PendedCount, out.RejectedCount = count("np"), count("nd"), count("nw"), count("nr")
	if fields["x"] != "" {
		// Closed after a cancel; an outcome that came even later took its place among the rest.
		out.NotProcessedCount = out.GetClaimCount() - min(n, out.GetClaimCount())
		out.OutcomeCount = out.GetClaimCount()
	}
	if at, err := strconv.ParseInt(fields["t"], 10, 64); err == nil {
		out.CompletedTime = millis(at)
	}
	return out, nil
}

func remittanceRow(fields map[string]string) (*claimsv1.Remittance, error) {
	out := &claimsv1.Remittance{}
	return out, errors.Join(part(fields, "i", out), part(fields, "v", out))
}

// fileOfStream is the id in a file stream's name.
func fileOfStream(stream string) string { return stream[len(fileStream("")):] }

func bounded[T any](s []T, n int) []T { return s[:min(len(s), n)] }
