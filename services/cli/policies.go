package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
)

// sendBytes is the size of the pieces a file is sent in; half of what the messages allow.
const sendBytes = 256 << 10

// sendFile sends a file's content in pieces. io.EOF from a send says that the
// other side has answered already: the answer tells.
func sendFile(path string, send func([]byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, sendBytes)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if sendErr := send(buf[:n]); errors.Is(sendErr, io.EOF) {
				return nil
			} else if sendErr != nil {
				return sendErr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (a *app) policiesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policies", Short: "Enrol members from files", Args: cobra.NoArgs}
	var options gatewayv1.ImportEnrollmentFileOptions
	var ack string
	imp := &cobra.Command{
		Use:   "import FILE.834",
		Short: "Apply an X12 834 enrolment file",
		Long: `Apply an X12 834 enrolment file (005010X220A1).

The file is judged whole first. Each member's changes then succeed or fail by
themselves; a member may have several, one a coverage. A file is known by its
bytes: importing it again, or again after a failure, applies nothing twice and
gives the same answer. Exit code 5 says that something of it was refused.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			up, err := conn.enrollments.ImportEnrollmentFile(cmd.Context())
			if err != nil {
				return err
			}
			err = up.Send(&gatewayv1.ImportEnrollmentFileRequest{Part: &gatewayv1.ImportEnrollmentFileRequest_Options{Options: &options}})
			if err == nil {
				err = sendFile(args[0], func(b []byte) error {
					return up.Send(&gatewayv1.ImportEnrollmentFileRequest{Part: &gatewayv1.ImportEnrollmentFileRequest_Data{Data: b}})
				})
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			got, err := up.CloseAndReceive()
			if err != nil {
				return err
			}
			if ack != "" && len(got.GetAcknowledgement()) > 0 {
				if err := a.writeTo(ack, func(w io.Writer) error { _, err := w.Write(got.GetAcknowledgement()); return err }); err != nil {
					return err
				}
			}
			if err := a.emit(raw(got), raws(got.GetOutcomes()), func(w io.Writer) error { return a.printImport(w, args[0], got, options.GetDryRun()) }); err != nil {
				return err
			}
			refused := len(got.GetProblems()) > 0
			for _, o := range got.GetOutcomes() {
				refused = refused || o.GetResult() == policiesv1.EnrollmentOutcome_RESULT_REFUSED || o.GetResult() == policiesv1.EnrollmentOutcome_RESULT_DIFFERS
			}
			if refused {
				return outcome(ExitRejected)
			}
			return nil
		},
	}
	imp.Flags().StringVar(&options.PayerId, "payer", "", "payer whose members these are (default the file's N1*IN)")
	imp.Flags().BoolVar(&options.DryRun, "dry-run", false, "only read and check")
	imp.Flags().StringVar(&ack, "ack", "", "write the 999 here; - is standard output")
	cmd.AddCommand(imp)
	return cmd
}

// printImport prints what became of each change and below it, of those that
// were refused or differ, what to do. A fault that refused one member stands in
// the file's problems and in the member's outcome, and is told once.
func (a *app) printImport(w io.Writer, path string, got *gatewayv1.ImportEnrollmentFileResponse, dry bool) error {
	counts, told := map[policiesv1.EnrollmentOutcome_Result]int{}, map[string]bool{}
	rows := grid("CHANGE", "RESULT", "MEMBER", "FROM", "WHY")
	key := func(p *problemv1.Problem) string { return p.GetRuleId() + " " + p.GetX12Path() }
	for _, o := range got.GetOutcomes() {
		counts[o.GetResult()]++
		why := ""
		for i, p := range o.GetProblems() {
			if told[key(p)] = true; i == 0 {
				why = p.GetMessage()
			}
		}
		rows.AppendRow([]any{o.GetOrdinal() + 1, resultWord(o.GetResult()), dash(o.GetSubject()), dash(o.GetTouched().GetStartDate()), why})
	}
	printProblems(w, path, slices.DeleteFunc(slices.Clone(got.GetProblems()), func(p *problemv1.Problem) bool { return told[key(p)] }))
	if len(got.GetOutcomes()) > 0 {
		if err := render(w, rows); err != nil {
			return err
		}
		fmt.Fprintln(w)
		for _, o := range got.GetOutcomes() {
			if len(o.GetProblems()) > 0 {
				printProblems(w, fmt.Sprintf("%s: change %d", path, o.GetOrdinal()+1), o.GetProblems())
				fmt.Fprintln(w)
			}
		}
	}
	switch {
	case dry:
		fmt.Fprintf(w, "%s read; nothing was applied\n", members(got.GetMemberCount()))
		return nil
	case len(got.GetOutcomes()) == 0:
		fmt.Fprintln(w, "the file was refused; nothing was applied")
		return nil
	}
	var parts []string
	for _, r := range []policiesv1.EnrollmentOutcome_Result{
		policiesv1.EnrollmentOutcome_RESULT_APPLIED, policiesv1.EnrollmentOutcome_RESULT_UNCHANGED, policiesv1.EnrollmentOutcome_RESULT_SKIPPED,
		policiesv1.EnrollmentOutcome_RESULT_DIFFERS, policiesv1.EnrollmentOutcome_RESULT_REFUSED,
	} {
		if counts[r] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[r], resultWord(r)))
		}
	}
	fmt.Fprintf(w, "%s: %s\n", members(got.GetMemberCount()), strings.Join(parts, ", "))
	if got.GetDuplicate() {
		fmt.Fprintln(w, "this file had been applied before; these are its outcomes from then")
	}
	return nil
}

func members(n uint32) string {
	if n == 1 {
		return "1 member"
	}
	return fmt.Sprintf("%d members", n)
}

func resultWord(r policiesv1.EnrollmentOutcome_Result) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "RESULT_"))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) membersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "members", Short: "Show members' coverage, as known now or then", Args: cobra.NoArgs,
		Long: `Show members' coverage, as known now or then.

A member is named by subject id, or by payer, card and birth date. The answer
holds neither name nor card.`,
	}
	cmd.AddCommand(a.membersGet(), a.membersHistory())
	return cmd
}

// whom adds the flags that name a member.
func whom(cmd *cobra.Command) func(args []string) (*policiesv1.GetMemberRequest, error) {
	var req policiesv1.GetMemberRequest
	cmd.Flags().StringVar(&req.PayerId, "payer", "", "payer id, with --card and --born")
	cmd.Flags().StringVar(&req.MemberId, "card", "", "member id as on the card")
	cmd.Flags().StringVar(&req.BirthDate, "born", "", "birth date, YYYY-MM-DD")
	return func(args []string) (*policiesv1.GetMemberRequest, error) {
		if len(args) == 1 {
			req.Subject = args[0]
		}
		if (req.GetSubject() == "") == (req.GetPayerId() == "" || req.GetMemberId() == "" || req.GetBirthDate() == "") {
			return nil, usagef("name the member by subject id, or by --payer, --card and --born")
		}
		return &req, nil
	}
}

func (a *app) membersGet() *cobra.Command {
	var known string
	cmd := &cobra.Command{
		Use:   "get [SUBJECT]",
		Short: "Show a member's coverage",
		Args:  cobra.MaximumNArgs(1),
	}
	named := whom(cmd)
	cmd.Flags().StringVar(&known, "known", "", "as it was known at this time, RFC 3339 or YYYY-MM-DD (that day's end, UTC)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := named(args)
		if err != nil {
			return err
		}
		if known != "" {
			at, err := time.Parse(time.RFC3339, known)
			if err != nil {
				if at, err = time.Parse(time.DateOnly, known); err != nil {
					return usagef("--known %q is neither RFC 3339 nor YYYY-MM-DD", known)
				}
				at = at.AddDate(0, 0, 1).Add(-time.Nanosecond)
			}
			req.KnownTime = timestamppb.New(at)
		}
		conn, err := a.connect()
		if err != nil {
			return err
		}
		got, err := conn.policies.GetMember(cmd.Context(), req)
		if err != nil {
			return err
		}
		return a.emitOne(got, func(w io.Writer) error {
			fmt.Fprintf(w, "member   %s\nfamily   %s\npayer    %s\nknown    %s (revision %d)\n\n", got.GetSubject(), got.GetSubscriber(), got.GetPayerId(), a.time(got.GetRecordedTime()), got.GetRevision())
			return render(w, spanRows(got.GetCoverage()))
		})
	}
	return cmd
}

func spanRows(spans []*policiesv1.CoverageSpan) table.Writer {
	rows := grid("FROM", "TO", "POLICY", "PLAN", "RELATIONSHIP", "OTHER PAYER")
	for _, s := range spans {
		other := "-"
		if s.GetOtherPayerPrimary() {
			other = "primary"
		}
		rows.AppendRow([]any{s.GetPeriod().GetStartDate(), dash(s.GetPeriod().GetEndDate()), s.GetPolicyId(), s.GetPlanId(), s.GetRelationshipCode(), other})
	}
	return rows
}

func (a *app) membersHistory() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history [SUBJECT]",
		Short: "List what was recorded of a member's coverage, and when",
		Args:  cobra.MaximumNArgs(1),
	}
	named := whom(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := named(args)
		if err != nil {
			return err
		}
		conn, err := a.connect()
		if err != nil {
			return err
		}
		got, err := conn.policies.GetMemberHistory(cmd.Context(), &policiesv1.GetMemberHistoryRequest{Member: req})
		if err != nil {
			return err
		}
		return a.emit(raw(got), raws(got.GetChanges()), func(w io.Writer) error {
			rows := grid("REVISION", "RECORDED", "WHAT", "EFFECTIVE", "POLICY", "BATCH", "COVERAGE FROM THEN ON")
			for _, c := range got.GetChanges() {
				var spans []string
				for _, s := range c.GetCoverage() {
					spans = append(spans, s.GetPeriod().GetStartDate()+" to "+dash(s.GetPeriod().GetEndDate()))
				}
				effective := dash(c.GetEffectiveDate())
				if c.GetRetroactive() {
					effective += " (retroactive)"
				}
				rows.AppendRow([]any{c.GetRevision(), a.time(c.GetRecordedTime()), c.GetKind(), effective, dash(c.GetPolicyId()), dash(c.GetBatchId()), dash(strings.Join(spans, ", "))})
			}
			return render(w, rows)
		})
	}
	return cmd
}

func (a *app) editsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "edits", Short: "Import the tables of claim edits CMS publishes", Args: cobra.NoArgs}
	var header policiesv1.EditsHeader
	var tableFlag string
	imp := &cobra.Command{
		Use:   "import FILE --payer ID --table TABLE --quarter 2026Q1",
		Short: "Import a quarter's table",
		Long: `Import a quarter's table, as CMS publishes it: tab separated text or CSV,
unpacked. Tables: ` + strings.Join(tableNames(), ", ") + `.

It governs dates of service from the quarter's first day until a later
quarter's table does. A file with a faulty row is refused whole; every faulty
row is named, up to a hundred.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			number, ok := policiesv1.EditTable_value["EDIT_TABLE_"+strings.ToUpper(strings.ReplaceAll(tableFlag, "-", "_"))]
			if !ok || number == 0 {
				return usagef("--table %q is none of %s", tableFlag, strings.Join(tableNames(), ", "))
			}
			header.Table = policiesv1.EditTable(number)
			conn, err := a.connect()
			if err != nil {
				return err
			}
			up, err := conn.edits.ImportEdits(cmd.Context())
			if err != nil {
				return err
			}
			err = up.Send(&policiesv1.ImportEditsRequest{Part: &policiesv1.ImportEditsRequest_Header{Header: &header}})
			if err == nil {
				err = sendFile(args[0], func(b []byte) error {
					return up.Send(&policiesv1.ImportEditsRequest{Part: &policiesv1.ImportEditsRequest_Data{Data: b}})
				})
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			got, err := up.CloseAndReceive()
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				state := "published"
				if got.GetUnchanged() {
					state = "is so already"
				}
				_, err := fmt.Fprintf(w, "%s version %d of %s %s: %d rows\n", tableFlag, got.GetVersion(), header.GetQuarter(), state, got.GetRowCount())
				return err
			})
		},
	}
	imp.Flags().StringVar(&header.PayerId, "payer", "", "payer whose claims are edited by it")
	imp.Flags().StringVar(&tableFlag, "table", "", strings.Join(tableNames(), ", "))
	imp.Flags().StringVar(&header.Quarter, "quarter", "", "quarter it was published for, 2026Q1")
	for _, name := range []string{"payer", "table", "quarter"} {
		_ = imp.MarkFlagRequired(name) // the flag exists: that is the only way this fails
	}
	var list policiesv1.ListEditTablesRequest
	ls := &cobra.Command{
		Use:   "list --payer ID",
		Short: "List the tables imported",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.edits.ListEditTables(cmd.Context(), &list)
			if err != nil {
				return err
			}
			return a.emit(raw(got), raws(got.GetTables()), func(w io.Writer) error {
				rows := right(grid("TABLE", "VERSION", "QUARTER", "ROWS", "DIGEST"), "VERSION", "ROWS")
				for _, t := range got.GetTables() {
					rows.AppendRow([]any{tableName(t.GetTable()), t.GetVersion(), t.GetQuarter(), t.GetRowCount(), fmt.Sprintf("%.12x", t.GetDigest())})
				}
				return render(w, rows)
			})
		},
	}
	ls.Flags().StringVar(&list.PayerId, "payer", "", "payer")
	_ = ls.MarkFlagRequired("payer") // the flag exists: that is the only way this fails
	cmd.AddCommand(imp, ls)
	return cmd
}

func tableName(t policiesv1.EditTable) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(t.String(), "EDIT_TABLE_"), "_", "-"))
}

func tableNames() []string {
	var out []string
	for n := int32(1); policiesv1.EditTable_name[n] != ""; n++ {
		out = append(out, tableName(policiesv1.EditTable(n)))
	}
	return out
}

func (a *app) plansDiff() *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD NEW.yaml",
		Short: "Show what a new plan document changes, and for how many",
		Long: `Show what a new plan document changes, and for how many.

OLD is a file, or a published plan: plan_gold is its newest version, plan_gold@3
the third. Nothing is recorded. What is wrong with the new document is told
too, with exit code 1; nothing else is told where it is no plan.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &policiesv1.DiffPlansRequest{}
			if id, version, found := strings.Cut(args[0], "@"); strings.HasPrefix(id, "plan_") && !strings.ContainsAny(id, "./\\") {
				req.PlanId = id
				if found {
					n, err := strconv.ParseUint(version, 10, 32)
					if err != nil || n == 0 {
						return usagef("%q names no version: write plan_gold@3", args[0])
					}
					req.Version = uint32(n)
				}
			} else {
				text, err := readDocument(args[0])
				if err != nil {
					return err
				}
				req.OldDocument = string(text)
			}
			text, err := readDocument(args[1])
			if err != nil {
				return err
			}
			req.NewDocument = string(text)
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.policies.DiffPlans(cmd.Context(), req)
			if err != nil {
				return err
			}
			if err := a.emit(raw(got), raws(got.GetDifferences()), func(w io.Writer) error { return a.printDiff(w, args[1], got) }); err != nil {
				return err
			}
			if len(got.GetProblems()) > 0 {
				return outcome(ExitFailed)
			}
			return nil
		},
	}
}

func (a *app) printDiff(w io.Writer, path string, got *policiesv1.DiffPlansResponse) error {
	if len(got.GetDifferences()) > 0 {
		rows := grid("BENEFIT", "CHANGE", "FIELD", "BEFORE", "AFTER", "FAVOURS")
		for _, d := range got.GetDifferences() {
			benefit := d.GetBenefit()
			if benefit == "" {
				benefit = "(plan)"
			}
			rows.AppendRow([]any{benefit, d.GetKind(), dash(d.GetField()), dash(shortened(d.GetOldValue())), dash(shortened(d.GetNewValue())), dash(d.GetFavours())})
		}
		if err := render(w, rows); err != nil {
			return err
		}
		fmt.Fprintln(w)
	} else if len(got.GetProblems()) == 0 {
		fmt.Fprintln(w, "no difference")
	}
	if got.GetPlanId() != "" {
		fmt.Fprintf(w, "%s governs %d members of %d families as enrolled now\n", got.GetPlanId(), got.GetMembersAffected(), got.GetFamiliesAffected())
	}
	printProblems(w, path, got.GetProblems())
	return nil
}

// shortened keeps a long list of codes from filling the table; -o json has it whole.
func shortened(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return s
}
