package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/money"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
)

// emit writes data in the chosen format: doc for json and yaml, rows (or doc,
// when there are none) one a line for jsonl, show for text.
func (a *app) emit(doc any, rows []any, show func(io.Writer) error) error {
	switch a.flags.output {
	case "none":
		return nil
	case "text":
		return show(a.Out)
	case "jsonl":
		if rows == nil {
			rows = []any{doc}
		}
		for _, row := range rows {
			line, err := json.Marshal(row)
			if err != nil {
				return err
			}
			if _, err := a.Out.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		return nil
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	if a.flags.output == "yaml" {
		if out, err = yaml.JSONToYAML(out); err != nil {
			return err
		}
		_, err = a.Out.Write(out)
		return err
	}
	_, err = a.Out.Write(append(out, '\n'))
	return err
}

// counted is a number of things: "1 claim", "2 claims". plural, if given, is
// what follows one of many: counted(n, "claim is", "claims are").
func counted[N ~int | ~int64 | ~uint32 | ~uint64](n N, one string, many ...string) string {
	switch {
	case n == 1:
		return "1 " + one
	case len(many) > 0:
		return fmt.Sprintf("%d %s", n, many[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// emitOne is emit of a service's message.
func (a *app) emitOne(m proto.Message, show func(io.Writer) error) error {
	return a.emit(raw(m), nil, show)
}

// raw is a message's JSON as its service would send it, zero amounts
// included, without the random spaces protojson adds.
func raw(m proto.Message) json.RawMessage {
	out, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return json.RawMessage("null")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, out); err != nil {
		return json.RawMessage("null")
	}
	return compact.Bytes()
}

func raws[M proto.Message](list []M) []any {
	out := make([]any, 0, len(list))
	for _, m := range list {
		out = append(out, raw(m))
	}
	return out
}

// grid is a plain table: no lines, so that columns survive being piped.
func grid(header ...any) table.Writer {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format = table.FormatOptions{Header: text.FormatDefault, Footer: text.FormatDefault}
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	t.AppendHeader(header)
	return t
}

// right aligns the named columns: amounts line up on their points.
func right(t table.Writer, columns ...string) table.Writer {
	configs := make([]table.ColumnConfig, 0, len(columns))
	for _, name := range columns {
		configs = append(configs, table.ColumnConfig{Name: name, Align: text.AlignRight, AlignHeader: text.AlignRight, AlignFooter: text.AlignRight})
	}
	t.SetColumnConfigs(configs)
	return t
}

func render(w io.Writer, t table.Writer) error {
	for line := range strings.Lines(t.Render() + "\n") {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) colored() bool {
	switch a.flags.color {
	case "always":
		return true
	case "never":
		return false
	}
	return a.OutTerminal && a.Env("NO_COLOR") == "" && a.Env("TERM") != "dumb"
}

const (
	green  = "32"
	yellow = "33"
	red    = "31"
)

func (a *app) paint(color, s string) string {
	if !a.colored() {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

// say writes a message for a person.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }

func dollars(cents int64) string { return money.Cents(cents).String() }

func (a *app) time(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	at := t.AsTime()
	switch a.flags.timeFormat {
	case "raw":
		return fmt.Sprint(at.Unix())
	case "relative":
		ago := a.Now().Sub(at)
		switch {
		case ago < 0:
			return "in " + (-ago).Round(time.Second).String()
		case ago < time.Minute:
			return fmt.Sprintf("%ds ago", int(ago.Seconds()))
		case ago < time.Hour:
			return fmt.Sprintf("%dm ago", int(ago.Minutes()))
		case ago < 48*time.Hour:
			return fmt.Sprintf("%dh ago", int(ago.Hours()))
		}
		return fmt.Sprintf("%dd ago", int(ago.Hours()/24))
	}
	return at.UTC().Format(time.RFC3339)
}

func place(p *ledgerv1.Position) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%s/%d/%d", p.GetLog(), p.GetShard(), p.GetIndex())
}

// statusWords are claim statuses in the field's own order of things: the
// class of X12's claim status categories and a word.
var statusWords = map[claimsv1.ClaimStatus]string{
	claimsv1.ClaimStatus_CLAIM_STATUS_RECEIVED:      "A1 received",
	claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:        "P in review",
	claimsv1.ClaimStatus_CLAIM_STATUS_PAID:          "F1 paid",
	claimsv1.ClaimStatus_CLAIM_STATUS_DENIED:        "F2 denied",
	claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED:      "A3 returned",
	claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED:      "F3 revised",
	claimsv1.ClaimStatus_CLAIM_STATUS_NOT_PROCESSED: "A3 not processed",
}

func (a *app) status(s claimsv1.ClaimStatus) string {
	word, known := statusWords[s]
	if !known {
		return "unknown"
	}
	switch s {
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID:
		return a.paint(green, word)
	case claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED:
		return a.paint(red, word)
	case claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		return a.paint(yellow, word)
	}
	return word
}

// shortHash is enough of a subject id to tell members of one list apart.
func shortHash(subject string) string {
	subject = strings.TrimPrefix(subject, "sub_")
	if len(subject) > 8 {
		subject = subject[:8]
	}
	if subject == "" {
		return "-"
	}
	return subject
}

// printProblems is the one shape of "this is wrong, do that".
func printProblems(w io.Writer, label string, list []*problemv1.Problem) {
	for _, p := range list {
		at := label
		if p.GetLine() > 0 {
			at = fmt.Sprintf("%s:%d", label, p.GetLine())
			if p.GetColumn() > 0 {
				at += fmt.Sprintf(":%d", p.GetColumn())
			}
		}
		fmt.Fprintf(w, "%s: %s\n", at, p.GetMessage())
		row := func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "  %-7s %s\n", name, value)
			}
		}
		row("rule", p.GetRuleId())
		row("field", p.GetFieldPath())
		row("x12", p.GetX12Path())
		row("code", p.GetCode())
		row("fix", p.GetFix())
		if p.GetRetryable() {
			row("retry", "safe to send again unchanged")
		}
		row("request", p.GetRequestId())
	}
}

func printError(w io.Writer, cmd *cobra.Command, err error, requestID string) {
	var p *problem.Error
	if errors.As(err, &p) {
		printProblems(w, "error", server.ToProto(p, requestID))
		return
	}
	fmt.Fprintf(w, "error: %s\n", err)
	if exitCode(err) == ExitUsage && cmd != nil {
		fmt.Fprintf(w, "  fix     see %s --help\n", cmd.CommandPath())
	}
}

func printErrorJSON(w io.Writer, err error, code int, requestID string) {
	var p *problem.Error
	if !errors.As(err, &p) {
		p = problem.New(problem.Invalid, problem.Problem{RuleID: "cli", Message: err.Error()})
	}
	out, marshalErr := json.Marshal(map[string]any{"error": map[string]any{
		"exitCode": code, "kind": p.Kind, "problems": raws(server.ToProto(p, requestID)),
	}})
	if marshalErr == nil {
		fmt.Fprintf(w, "%s\n", out)
	}
}
