package cli_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/identity/issuer"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// TestScripts runs testdata/script against fake services behind the real
// chassis and the real development issuer. In a script
//
//	probity [=CODE] ARGS…   runs a command line, which must end with CODE (0)
//	down workflows          makes the workflow service fail
//	terminal                gives the following commands a terminal
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			w, err := newWorld(env.WorkDir)
			if err != nil {
				return err
			}
			env.Defer(w.close)
			env.Values[worldKey{}] = w
			for name, content := range map[string][]byte{
				// A script holds text only.
				"latin1.yaml":  []byte("planId: plan_caf\xe9\n"),
				"kept.promise": w.ledger.kept, "broken.promise": w.ledger.broken,
			} {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), content, 0o600); err != nil {
					return err
				}
			}
			env.Setenv("URL", w.url)
			env.Setenv("SECRETS", filepath.Join(env.WorkDir, ".issuer"))
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, ".config"))
			env.Setenv("PAID", paidID)
			env.Setenv("DENIED", deniedID)
			env.Setenv("PENDED", pendedID)
			env.Setenv("FILE", fileID)
			env.Setenv("REMIT", remitID)
			_, err = cli.WriteContext(env.Getenv, "standalone", cli.Context{
				Server: w.url, TokenURL: w.url + "/issuer/token",
				ClientID: "biller", SecretFile: filepath.Join(env.WorkDir, ".issuer", "biller.secret"),
			})
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"probity":  probity,
			"down":     func(ts *testscript.TestScript, _ bool, args []string) { worldOf(ts).down.Store(args[0] == "workflows") },
			"terminal": func(ts *testscript.TestScript, _ bool, _ []string) { worldOf(ts).terminal = true },
		},
	})
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func probity(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("say which exit code is wanted: probity =CODE …")
	}
	want := 0
	if len(args) > 0 && strings.HasPrefix(args[0], "=") {
		n, err := strconv.Atoi(args[0][1:])
		ts.Check(err)
		want, args = n, args[1:]
	}
	w := worldOf(ts)
	for i, arg := range args {
		if strings.HasPrefix(arg, "./") {
			args[i] = ts.MkAbs(arg)
		}
	}
	root := cli.New(cli.Streams{
		In: strings.NewReader("ISA*good~"), Out: ts.Stdout(), Err: ts.Stderr(),
		OutTerminal: w.terminal, ErrTerminal: w.terminal,
		Env: ts.Getenv,
		Now: func() time.Time { return w.now },
		// The clock moves only when someone waits.
		Sleep: func(_ context.Context, d time.Duration) error { w.now = w.now.Add(d); return nil },
		NewID: func() string { return "7d8f2d38-4fd4-4a7e-8f0c-2d2c9d6f3a11" },
	})
	if got := cli.Execute(context.Background(), root, args); got != want {
		ts.Fatalf("probity %s: exit code %d, not %d", strings.Join(args, " "), got, want)
	}
}

// newWorld starts the fakes on loopback.
func newWorld(dir string) (*world, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &world{url: "http://" + listener.Addr().String(), now: noon, submitted: map[string]bool{}}
	issuing, err := issuer.New(issuer.Config{URL: w.url + "/issuer", Dir: filepath.Join(dir, ".issuer"), Principals: issuer.Development("prov-lakeside")})
	if err != nil {
		return nil, err
	}
	verifier, err := identity.NewVerifier(identity.VerifierConfig{Issuer: w.url + "/issuer", Keys: issuing.Keys()})
	if err != nil {
		return nil, err
	}
	tel, err := telemetry.Setup(context.Background(), telemetry.Config{LogOutput: &strings.Builder{}, LogLevel: "error"})
	if err != nil {
		return nil, err
	}
	if w.authorizer, err = identity.NewAuthorizer(); err != nil {
		return nil, err
	}
	srv, err := server.New(server.Config{}, server.Deps{Telemetry: tel, Verifier: verifier})
	if err != nil {
		return nil, err
	}
	srv.MountPublic("/issuer/", issuing.Handler())
	srv.Mount(gatewayv1connect.NewGatewayServiceHandler(gatewayFake{world: w}, srv.Options()...))
	srv.Mount(claimsv1connect.NewClaimsServiceHandler(claimsFake{world: w}, srv.Options()...))
	srv.Mount(claimsv1connect.NewFileServiceHandler(filesFake{world: w}, srv.Options()...))
	srv.Mount(claimsv1connect.NewRemittanceServiceHandler(remittancesFake{world: w}, srv.Options()...))
	payments := &paymentsFake{payment: aPayment()}
	srv.Mount(claimsv1connect.NewPaymentServiceHandler(payments, srv.Options()...))
	srv.Mount(claimsv1connect.NewPaymentTaskServiceHandler(payTasksFake{payments: payments}, srv.Options()...))
	srv.Mount(workflowsv1connect.NewPaymentCycleServiceHandler(cyclesFake{}, srv.Options()...))
	srv.Mount(claimsv1connect.NewReplayServiceHandler(replaysFake{world: w}, srv.Options()...))
	srv.Mount(claimsv1connect.NewAdjustmentServiceHandler(adjustmentsFake{world: w}, srv.Options()...))
	srv.Mount(claimsv1connect.NewCaseServiceHandler(casesFake{world: w}, srv.Options()...))
	srv.Mount(policiesv1connect.NewPoliciesServiceHandler(policiesFake{world: w}, srv.Options()...))
	srv.Mount(policiesv1connect.NewEditsServiceHandler(editsFake{}, srv.Options()...))
	spool := filepath.Join(dir, ".spool")
	if err := os.Mkdir(spool, 0o700); err != nil {
		return nil, err
	}
	enrolling, endEnrolling, err := w.enrolling(spool)
	if err != nil {
		return nil, err
	}
	srv.Mount(gatewayv1connect.NewEnrollmentFileServiceHandler(enrolling, srv.Options()...))
	srv.Mount(workflowsv1connect.NewWorkflowServiceHandler(workflowsFake{world: w}, srv.Options()...))
	if w.ledger, err = newLedgerFake(); err != nil {
		return nil, err
	}
	srv.Mount(ledgerv1connect.NewLedgerServiceHandler(w.ledger, srv.Options()...))
	srv.Mount(ledgerv1connect.NewProofServiceHandler(w.ledger, srv.Options()...))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, listener) }()
	w.close = func() {
		cancel()
		if err := errors.Join(<-done, endEnrolling(), tel.Shutdown(context.Background())); err != nil {
			panic(fmt.Sprintf("the fake services did not stop cleanly: %v", err))
		}
	}
	return w, nil
}

func TestEveryCommandIsDocumented(t *testing.T) {
	root := cli.New(cli.System())
	seen := 0
	commands := root.Commands()
	for len(commands) > 0 {
		cmd := commands[0]
		commands = append(commands[1:], cmd.Commands()...)
		seen++
		require.NotEmpty(t, cmd.Short, cmd.CommandPath())
		require.False(t, strings.HasSuffix(cmd.Short, "."), cmd.CommandPath())
		require.NotNil(t, cmd.Args, "%s must say how many arguments it takes", cmd.CommandPath())
	}
	require.Greater(t, seen, 20)
}

func TestAContextIsReadStrictly(t *testing.T) {
	dir := t.TempDir()
	env := func(name string) string { return map[string]string{"HOME": dir}[name] }
	path, err := cli.WriteContext(env, "one", cli.Context{Server: "http://127.0.0.1:1"})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, ".config", "probity", "contexts", "one.json"), path)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())

	require.NoError(t, os.WriteFile(path, []byte(`{"server":"http://127.0.0.1:1","secret":"oops"}`), 0o600))
	var out, errs strings.Builder
	streams := cli.System()
	streams.Out, streams.Err, streams.Env = &out, &errs, env
	code := cli.Execute(context.Background(), cli.New(streams), []string{"claims", "list", "--context", "one"})
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs.String(), `unknown field "secret"`)

	_, err = cli.ContextPath(env, "../escape")
	require.Error(t, err)
}
