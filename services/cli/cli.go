// Package cli is Probity's command line for people and scripts: it speaks to
// the gateway and verifies proofs offline. It holds no rule of any domain.
//
// Promises to scripts: data goes to standard output and everything else to
// standard error; nothing moves or is coloured off a terminal; the formats
// json, jsonl and yaml carry the services' own messages; exit codes are
// those of the Exit constants and don't change meaning.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/telemetry"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitForbidden   = 4 // sign-in or permission
	ExitRejected    = 5 // a claim or file was refused
	ExitDiffers     = 6 // a replay came to another decision
	ExitProofFailed = 7
	ExitUnavailable = 8 // safe to retry
)

// Streams is what a command line touches of its process. Tests make their own.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// OutTerminal and ErrTerminal allow colour, and progress bars on Err.
	OutTerminal, ErrTerminal bool
	// Env reads an environment variable.
	Env func(string) string
	// Now is the clock; Sleep waits between polls and ends early with its context.
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error
	// NewID makes request ids.
	NewID func() string
}

// System returns the process's own streams.
func System() Streams {
	return Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		OutTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		ErrTerminal: term.IsTerminal(int(os.Stderr.Fd())),
		Env:         os.Getenv,
		Now:         time.Now,
		Sleep: func(ctx context.Context, d time.Duration) error {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		NewID: uuid.NewString,
	}
}

// app is the state that one invocation's commands share.
type app struct {
	Streams
	flags struct {
		output, timeFormat, color  string
		context, server, tokenFile string
	}
	requestID string
}

// New returns the root command. Others (serve) are added with AddCommand.
func New(streams Streams) *cobra.Command {
	a := &app{Streams: streams}
	root := &cobra.Command{
		Use:   "probity",
		Short: "Adjudicate health claims and prove what was decided",
		Long: `Adjudicate health claims and prove what was decided.

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 sign-in or permission,
5 claim rejected, 6 replay differs, 7 proof failed, 8 unavailable and safe to retry.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			a.requestID = a.NewID()
			cmd.SetContext(telemetry.WithRequestID(cmd.Context(), a.requestID))
			return a.checkFlags()
		},
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := root.PersistentFlags()
	flags.StringVarP(&a.flags.output, "output", "o", "text", "text, json, jsonl, yaml or none")
	flags.StringVar(&a.flags.timeFormat, "time-format", "iso", "iso, relative or raw (Unix seconds)")
	flags.StringVar(&a.flags.color, "color", "auto", "auto, always or never; NO_COLOR is honoured")
	flags.StringVar(&a.flags.context, "context", "", "whom to speak to and as whom (default $PROBITY_CONTEXT or standalone)")
	flags.StringVar(&a.flags.server, "server", "", "gateway URL, over the context's")
	flags.StringVar(&a.flags.tokenFile, "token-file", "", "file with a bearer token, over the context's client")
	root.AddCommand(
		a.loginCommand(), a.submitCommand(), a.validateCommand(),
		a.claimsCommand(), a.filesCommand(), a.remitCommand(), a.paymentsCommand(), a.reviewCommand(),
		a.tasksCommand(), a.appealsCommand(),
		a.plansCommand(), a.policiesCommand(), a.membersCommand(), a.editsCommand(), a.generateCommand(),
		a.receiptCommand(), a.keysCommand(), a.verifyCommand(), a.ledgerCommand(), a.fsckCommand(),
		a.versionCommand(), docsCommand(),
	)
	return root
}

func (a *app) checkFlags() error {
	for _, flag := range []struct{ name, value, allowed string }{
		{"output", a.flags.output, "text json jsonl yaml none"},
		{"time-format", a.flags.timeFormat, "iso relative raw"},
		{"color", a.flags.color, "auto always never"},
	} {
		if !contains(strings.Fields(flag.allowed), flag.value) {
			return usagef("--%s %q is none of %s", flag.name, flag.value, strings.ReplaceAll(flag.allowed, " ", ", "))
		}
	}
	return nil
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// outcome ends a command with an exit code after it has said everything itself.
type outcome int

func (o outcome) Error() string { return fmt.Sprintf("exit %d", int(o)) }

// Execute runs root with args, prints its error and returns the exit code.
func Execute(ctx context.Context, root *cobra.Command, args []string) int {
	groups(root)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	var done outcome
	if errors.As(err, &done) {
		return int(done)
	}
	asJSON := false
	if flag := root.PersistentFlags().Lookup("output"); flag != nil {
		asJSON = strings.HasPrefix(flag.Value.String(), "json")
	}
	id := ""
	if cmd.Context() != nil {
		id = telemetry.RequestID(cmd.Context())
	}
	code := exitCode(err)
	if asJSON {
		printErrorJSON(root.ErrOrStderr(), err, code, id)
	} else {
		printError(root.ErrOrStderr(), cmd, err, id)
	}
	return code
}

// groups makes commands that only hold others refuse a name they don't hold:
// cobra would show their help and call that success, and a script would go on.
func groups(cmd *cobra.Command) {
	if !cmd.Runnable() && cmd.HasSubCommands() {
		cmd.Args = cobra.NoArgs
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, c := range cmd.Commands() {
		groups(c)
	}
}

func exitCode(err error) int {
	var usage usageError
	var p *problem.Error
	switch {
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"), strings.Contains(err.Error(), "arg(s)"),
		strings.HasPrefix(err.Error(), "required flag"):
		return ExitUsage
	case errors.As(err, &p):
		switch p.Kind {
		case problem.NotFound:
			return ExitNotFound
		case problem.Unauthenticated, problem.Forbidden:
			return ExitForbidden
		case problem.Unavailable, problem.Exhausted:
			return ExitUnavailable
		}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ExitUnavailable
	}
	return ExitFailed
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}
