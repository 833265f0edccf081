// Package scenario tells what a user of Probity lives through, on one whole
// stack in a process of its own: sending claims, reviewing, restarting,
// getting things wrong, and losing the power.
package scenario

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/probity-health/probity/e2e/process"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/standalone"
)

func TestMain(m *testing.M) {
	process.Main(m, map[string]process.Program{"standalone": standalone.Main})
}

// patience bounds each wait of these tests. It is no measure of anything:
// two busy cores may take long.
const patience = 2 * time.Minute

// stack is a standalone stack in a process of its own, on a data directory
// and an address that it keeps when it is killed and started again.
type stack struct {
	home    string // of everything: data, the CLI's configuration, scratch files
	dir     string
	address string
	url     string
	process *process.Process
	before  []*process.Process            // earlier lives
	as      map[string]standalone.Clients // of the test's own goroutine
	// logged is what a stack in this process has logged; its process is nil.
	logged func() string
}

// startStack starts a stack without any data.
func startStack(t *testing.T) *stack {
	t.Helper()
	home := t.TempDir()
	s := &stack{home: home, dir: filepath.Join(home, "data"), address: process.Address(t), as: map[string]standalone.Clients{}}
	s.url = "http://" + s.address
	s.start(t)
	return s
}

// start starts the process; t is the test that owns the stack.
func (s *stack) start(t *testing.T) {
	t.Helper()
	if s.process != nil {
		s.before = append(s.before, s.process)
	}
	// What the process spools goes below home too, so that a scan sees it.
	spool := filepath.Join(s.home, "tmp")
	require.NoError(t, os.MkdirAll(spool, 0o700))
	s.process = process.Start(t, "standalone", []string{"XDG_CONFIG_HOME=" + s.config(), "TMPDIR=" + spool},
		"--data-dir", s.dir, "--listen", s.address)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.process.AwaitReady(ctx, s.url+"/readyz"))
}

// stop ends the process as an operator would, and expects a clean end.
func (s *stack) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.process.Stop(ctx), s.process.Tail(20))
}

func (s *stack) config() string { return filepath.Join(s.home, "config") }

// output is all that the stack's processes have ever written.
func (s *stack) output() string {
	if s.process == nil {
		return s.logged()
	}
	var all strings.Builder
	for _, p := range append(s.before, s.process) {
		all.WriteString(p.Output())
	}
	return all.String()
}

// client speaks as one of the development users; it survives restarts. Only
// the test's own goroutine asks for one; others are handed what it got.
func (s *stack) client(t *testing.T, id string) standalone.Clients {
	t.Helper()
	if c, have := s.as[id]; have {
		return c
	}
	c, err := standalone.Dial(s.url, s.dir, id)
	require.NoError(t, err)
	s.as[id] = c
	return c
}

// developer may do everything a person may.
func (s *stack) developer(t *testing.T) standalone.Clients {
	t.Helper()
	return s.client(t, "developer")
}

// said is what a command line answered.
type said struct {
	code     int
	out, err string
}

// probity runs the command line in this process, against the context that
// the stack wrote for it.
func (s *stack) probity(t *testing.T, args ...string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	streams := cli.System()
	streams.In, streams.Out, streams.Err = strings.NewReader(""), &out, &errs
	streams.OutTerminal, streams.ErrTerminal = false, false
	streams.NewID = uuid.NewString
	streams.Env = func(name string) string {
		if name == "XDG_CONFIG_HOME" {
			return s.config()
		}
		return ""
	}
	code := cli.Execute(ctx, cli.New(streams), args)
	return said{code: code, out: out.String(), err: errs.String()}
}

// write puts content into a scratch file and returns its path.
func (s *stack) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(s.home, "scratch", name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

// loadSample publishes the sample payer.
func (s *stack) loadSample(t *testing.T) {
	t.Helper()
	_, err := sample.Load(t.Context(), s.developer(t).Policies)
	require.NoError(t, err)
}

// claims lists every claim that a filter lets through.
func (s *stack) claims(t *testing.T, filter *claimsv1.ListClaimsRequest) []*claimsv1.ClaimSummary {
	t.Helper()
	filter = proto.CloneOf(filter)
	filter.PageSize = 1000
	var all []*claimsv1.ClaimSummary
	for {
		page, err := s.developer(t).Claims.ListClaims(t.Context(), filter)
		require.NoError(t, err)
		all = append(all, page.GetClaims()...)
		if filter.PageToken = page.GetNextPageToken(); filter.PageToken == "" {
			return all
		}
	}
}

// files lists every file, newest first.
func (s *stack) files(t *testing.T) []*claimsv1.File {
	t.Helper()
	listed, err := s.developer(t).Files.ListFiles(t.Context(), &claimsv1.ListFilesRequest{PageSize: 1000})
	require.NoError(t, err)
	require.Empty(t, listed.GetNextPageToken())
	return listed.GetFiles()
}

// remittances lists those of a file, or all of them.
func (s *stack) remittances(t *testing.T, fileID string) []*claimsv1.Remittance {
	t.Helper()
	var all []*claimsv1.Remittance
	request := &claimsv1.ListRemittancesRequest{FileId: fileID, PageSize: 1000}
	for {
		page, err := s.developer(t).Remittances.ListRemittances(t.Context(), request)
		require.NoError(t, err)
		all = append(all, page.GetRemittances()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return all
		}
	}
}

// document fetches an X12 document.
func (s *stack) document(t *testing.T, kind, id string) []byte {
	t.Helper()
	body, err := standalone.Document(t.Context(), s.developer(t).Gateway, kind, id)
	require.NoError(t, err, "%s of %s", kind, id)
	return body
}

// segments splits an X12 document made by Probity.
func segments(document []byte) [][]string {
	var all [][]string
	for text := range strings.SplitSeq(string(document), "~") {
		if text = strings.TrimSpace(text); text != "" {
			all = append(all, strings.Split(text, "*"))
		}
	}
	return all
}

// count tells how many segments begin as given.
func count(all [][]string, begin ...string) int {
	n := 0
	for _, segment := range all {
		if len(segment) >= len(begin) && fmt.Sprint(segment[:len(begin)]) == fmt.Sprint(begin) {
			n++
		}
	}
	return n
}

func status(c *claimsv1.ClaimSummary) string {
	return strings.ToLower(strings.TrimPrefix(c.GetStatus().String(), "CLAIM_STATUS_"))
}
