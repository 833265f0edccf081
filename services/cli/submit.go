package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
)

// chunkBytes is the size of the pieces a file travels in; the schema allows twice as much.
const chunkBytes = 256 << 10

// showRows is how many claims the table of a file shows unless --show says otherwise.
const showRows = 100

func (a *app) submitCommand() *cobra.Command {
	var wait bool
	var timeout time.Duration
	var show int
	cmd := &cobra.Command{
		Use:   "submit FILE...",
		Short: "Submit X12 837 files and show what became of every claim",
		Long: `Submit X12 837 files and show what became of every claim.

Sending a file again is safe: the same bytes are recognised, nothing is paid
twice. FILE may be - for standard input. Exit code 5 says that the file or a
claim in it was refused and has to be corrected.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			rejected := false
			for _, path := range files {
				s := &submission{app: a, conn: conn, path: path, show: show}
				if err := s.run(cmd.Context(), wait, timeout); err != nil {
					return err
				}
				rejected = rejected || s.rejected()
			}
			if rejected {
				return outcome(ExitRejected)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until every claim has an outcome")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait for outcomes")
	cmd.Flags().IntVar(&show, "show", showRows, "how many claims to show as text; 0 is all")
	return cmd
}

// submission is one file on its way: what was answered and what became of it.
type submission struct {
	*app
	conn *connection
	path string
	show int

	answer *gatewayv1.SubmitFileResponse
	file   *claimsv1.File
	claims []*claimsv1.ClaimSummary
	// refused are the outcomes without a claim, with their problems.
	refused []*claimsv1.ClaimOutcome
}

func (s *submission) name() string {
	if s.path == "-" {
		return "standard input"
	}
	return filepath.Base(s.path)
}

func (s *submission) run(ctx context.Context, wait bool, timeout time.Duration) error {
	if err := s.send(ctx); err != nil {
		return err
	}
	s.file = s.answer.GetFile()
	if s.answer.GetDuplicate() {
		s.say("%s is a duplicate: the same bytes were received %s as %s; nothing is decided or paid again",
			s.name(), s.time(s.file.GetReceivedTime()), s.file.GetFileId())
	} else {
		s.say("%s: received as %s, %s, recorded at %s", s.name(), s.file.GetFileId(), counted(s.file.GetClaimCount(), "claim"), place(s.file.GetPosition()))
	}
	if s.file.GetState() != claimsv1.FileState_FILE_STATE_REFUSED && wait {
		if err := s.await(ctx, timeout); err != nil {
			return err
		}
		if err := s.collect(ctx); err != nil {
			return err
		}
	}
	return s.report(wait)
}

func (s *submission) send(ctx context.Context) error {
	in, size, err := s.open(s.path)
	if err != nil {
		return err
	}
	defer in.Close()
	stream, err := s.conn.gateway.SubmitFile(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&gatewayv1.SubmitFileRequest{Part: &gatewayv1.SubmitFileRequest_Options{
		Options: &gatewayv1.SubmitOptions{DisplayName: filepath.Base(s.path)},
	}})
	bar := s.progress("sending "+s.name(), size)
	defer bar.done()
	if err == nil {
		err = pump(in, func(data []byte) error {
			bar.set(bar.current + int64(len(data)))
			return stream.Send(&gatewayv1.SubmitFileRequest{Part: &gatewayv1.SubmitFileRequest_Data{Data: data}})
		})
	}
	// Send's io.EOF means that the server has already answered: the answer says why.
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	s.answer, err = stream.CloseAndReceive()
	return err
}

// open returns a file or standard input, and its size or 0 when unknown.
func (a *app) open(path string) (io.ReadCloser, int64, error) {
	if path == "-" {
		return io.NopCloser(a.In), 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = usagef("%s is a directory", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func pump(in io.Reader, send func([]byte) error) error {
	for {
		piece := make([]byte, chunkBytes)
		n, err := io.ReadFull(in, piece)
		if n > 0 {
			if err := send(piece[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// await polls until every claim has an outcome.
func (s *submission) await(ctx context.Context, timeout time.Duration) error {
	_, err := s.awaitFile(ctx, s.conn, s.file.GetFileId(), "deciding "+s.name(), timeout)
	return err
}

// collect reads the file's claims and the outcomes that never became a claim.
// The file's record has every outcome, the lists may be a moment behind it:
// a claim that they don't show yet is read from its own stream.
func (s *submission) collect(ctx context.Context) error {
	got, err := s.conn.files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: s.file.GetFileId()})
	if err != nil {
		return err
	}
	s.file = got.GetFile()
	unlisted := map[string]bool{}
	if err := s.conn.listOutcomes(ctx, s.file.GetFileId(), func(o *claimsv1.ClaimOutcome) error {
		if o.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED {
			s.refused = append(s.refused, o)
		} else if o.GetClaimId() != "" {
			unlisted[o.GetClaimId()] = true
		}
		return nil
	}); err != nil {
		return err
	}
	filter := &claimsv1.ListClaimsRequest{FileId: s.file.GetFileId(), MinToken: s.answer.GetToken()}
	if err := s.conn.listClaims(ctx, filter, 0, func(c *claimsv1.ClaimSummary) error {
		s.claims = append(s.claims, c)
		delete(unlisted, c.GetClaimId())
		return nil
	}); err != nil {
		return err
	}
	for id := range unlisted {
		got, err := s.conn.claims.GetClaim(ctx, &claimsv1.GetClaimRequest{ClaimId: id})
		if err != nil {
			return err
		}
		// What another file brought before stays in that file's list.
		if got.GetClaim().GetFileId() == s.file.GetFileId() {
			s.claims = append(s.claims, got.GetClaim())
		}
	}
	slices.SortStableFunc(s.claims, func(a, b *claimsv1.ClaimSummary) int { return cmp.Compare(a.GetFileOrdinal(), b.GetFileOrdinal()) })
	return nil
}

// problems are those of the file itself, without what its claims repeat.
func (s *submission) problems() []*problemv1.Problem {
	if len(s.file.GetProblems()) > 0 {
		return s.file.GetProblems()
	}
	if len(s.refused) > 0 {
		return nil
	}
	return s.answer.GetProblems()
}

func (s *submission) rejected() bool {
	return s.file.GetState() == claimsv1.FileState_FILE_STATE_REFUSED || len(s.problems()) > 0 || len(s.refused) > 0
}

func (s *submission) report(waited bool) error {
	var t totals
	rows := make([]any, 0, len(s.claims)+len(s.refused))
	for _, c := range s.claims {
		t.add(c, s.answer.GetDuplicate())
		rows = append(rows, raw(c))
	}
	rows = append(rows, raws(s.refused)...)
	doc := map[string]any{
		"file": raw(s.file), "duplicate": s.answer.GetDuplicate(), "problems": raws(s.problems()),
		"claims": raws(s.claims), "refused": raws(s.refused), "totals": t, "promise": s.answer.GetPromise(),
	}
	if len(rows) == 0 {
		rows = []any{doc}
	}
	if err := s.emit(doc, rows, func(w io.Writer) error {
		if len(s.claims)+len(s.refused) == 0 {
			return nil
		}
		return s.table(w, t)
	}); err != nil {
		return err
	}
	if s.file.GetState() == claimsv1.FileState_FILE_STATE_REFUSED {
		s.say("%s was refused whole: none of its claims is decided", s.name())
	}
	if n := s.file.GetNotProcessedCount(); n > 0 {
		s.say("%s was canceled: %d of its claims are not processed; send those again in a new file, with an interchange control number of its own", s.name(), n)
	}
	printProblems(s.Err, s.paint(red, "refused"), s.problems())
	for _, o := range s.refused {
		printProblems(s.Err, s.paint(red, fmt.Sprintf("claim #%d refused", o.GetOrdinal()+1)), o.GetProblems())
	}
	s.suggest(waited)
	return nil
}

func (s *submission) suggest(waited bool) {
	switch {
	case s.rejected():
		s.say("next: correct what is named above and submit again; acknowledgement: probity files document %s 999", s.file.GetFileId())
	case !waited:
		s.say("next: probity files get %s", s.file.GetFileId())
	case len(s.file.GetRemittanceIds()) > 0:
		s.say("next: probity remit get %s", s.file.GetRemittanceIds()[0])
	case len(s.claims) > 0:
		s.say("next: probity claims explain %s", s.claims[0].GetClaimId())
	}
}

func (s *submission) table(w io.Writer, t totals) error {
	rows := right(grid("CLAIM", "MEMBER", "CHARGE", "ALLOWED", "PAID", "PATIENT", "CODES", "STATUS"), "CHARGE", "ALLOWED", "PAID", "PATIENT")
	shown := 0
	full := func() bool { return s.show > 0 && shown >= s.show }
	for _, c := range s.claims {
		if full() {
			break
		}
		shown++
		if s.answer.GetDuplicate() {
			rows.AppendRow(claimRow(c, 0, s.paint(yellow, "duplicate of "+c.GetClaimId())))
		} else {
			rows.AppendRow(claimRow(c, c.GetPaidCents(), s.status(c.GetStatus())+repeated(c)))
		}
	}
	for _, o := range s.refused {
		if full() {
			break
		}
		shown++
		rows.AppendRow([]any{fmt.Sprintf("#%d", o.GetOrdinal()+1), "-", "-", "-", "-", "-", "-", s.status(o.GetStatus())})
	}
	rows.AppendFooter([]any{counted(t.Claims+len(s.refused), "claim"), "", dollars(t.ChargeCents), dollars(t.AllowedCents), dollars(t.PaidCents), dollars(t.PatientCents), "", t.words(len(s.refused))})
	if err := render(w, rows); err != nil {
		return err
	}
	if hidden := len(s.claims) + len(s.refused) - shown; hidden > 0 {
		s.say("%d more claims: probity claims list --file %s --limit 0", hidden, s.file.GetFileId())
	}
	return nil
}

// totals of a submission. PaidCents is what this submission causes to be paid: nothing, for a duplicate.
type totals struct {
	Claims       int   `json:"claims"`
	Paid         int   `json:"paid"`
	Denied       int   `json:"denied"`
	Pended       int   `json:"pended"`
	ChargeCents  int64 `json:"chargeCents"`
	AllowedCents int64 `json:"allowedCents"`
	PaidCents    int64 `json:"paidCents"`
	PatientCents int64 `json:"patientCents"`
}

func (t *totals) add(c *claimsv1.ClaimSummary, duplicate bool) {
	t.Claims++
	switch c.GetStatus() {
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID:
		t.Paid++
	case claimsv1.ClaimStatus_CLAIM_STATUS_DENIED:
		t.Denied++
	case claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		t.Pended++
	}
	t.ChargeCents += c.GetChargeCents()
	t.AllowedCents += c.GetAllowedCents()
	t.PatientCents += c.GetPatientCents()
	if !duplicate {
		t.PaidCents += c.GetPaidCents()
	}
}

func (t *totals) words(refused int) string {
	out := fmt.Sprintf("%d paid, %d denied, %d in review", t.Paid, t.Denied, t.Pended)
	if refused > 0 {
		out += fmt.Sprintf(", %d returned", refused)
	}
	return out
}

func (a *app) validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check X12 837 files without submitting them",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			sound := true
			for _, path := range files {
				answer, err := a.validate(cmd.Context(), conn, path)
				if err != nil {
					return err
				}
				sound = sound && len(answer.GetProblems()) == 0
				if err := a.emitOne(answer, func(w io.Writer) error {
					if len(answer.GetProblems()) == 0 {
						_, err := fmt.Fprintf(w, "%s: sound, %s\n", path, counted(answer.GetClaimCount(), "claim"))
						return err
					}
					printProblems(w, path, answer.GetProblems())
					return nil
				}); err != nil {
					return err
				}
			}
			if !sound {
				return outcome(ExitRejected)
			}
			return nil
		},
	}
}

func (a *app) validate(ctx context.Context, conn *connection, path string) (*gatewayv1.ValidateFileResponse, error) {
	in, _, err := a.open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	stream, err := conn.gateway.ValidateFile(ctx)
	if err != nil {
		return nil, err
	}
	err = pump(in, func(data []byte) error { return stream.Send(&gatewayv1.ValidateFileRequest{Data: data}) })
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream.CloseAndReceive()
}
