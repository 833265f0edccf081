package scenario

import (
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/standalone"
)

// collected keeps the names of the spans that an OTLP exporter sends, by trace.
type collected struct {
	mu    sync.Mutex
	spans map[string][]string // guarded by mu
}

func (c *collected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	raw, err := io.ReadAll(body)
	var request collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(raw, &request) != nil {
		http.Error(w, "not an export", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				id := hex.EncodeToString(span.GetTraceId())
				c.spans[id] = append(c.spans[id], span.GetName())
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// Given a collector, when a file is submitted, then one trace leads from the
// RPC through the commit and the workflow that it starts to the decision and
// the list that shows it.
func TestOneTraceLeadsFromTheRPCToTheView(t *testing.T) {
	traces := &collected{spans: map[string][]string{}}
	endpoint := httptest.NewServer(traces)
	defer endpoint.Close()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())

	stack, err := standalone.Start(t.Context(), standalone.Config{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", OTLPEndpoint: endpoint.URL, LogOutput: io.Discard,
	})
	require.NoError(t, err)
	clients, err := stack.As("developer")
	require.NoError(t, err)
	_, err = sample.Load(t.Context(), clients.Policies)
	require.NoError(t, err)
	submitted, err := standalone.Submit(t.Context(), clients.Gateway, sample.ClaimsFile())
	require.NoError(t, err)
	await(t, "the file is complete", func() bool {
		r, err := clients.Files.GetFile(t.Context(), &claimsv1.GetFileRequest{FileId: submitted.GetFile().GetFileId()})
		return err == nil && r.GetFile().GetState() == claimsv1.FileState_FILE_STATE_COMPLETE
	})
	await(t, "the list shows every claim", func() bool {
		r, err := clients.Claims.ListClaims(t.Context(), &claimsv1.ListClaimsRequest{FileId: submitted.GetFile().GetFileId()})
		return err == nil && len(r.GetClaims()) == 14
	})
	require.NoError(t, stack.Stop(), "stopping sends what is left to the collector")

	traces.mu.Lock()
	defer traces.mu.Unlock()
	steps := []string{
		"GatewayService/SubmitFile", "FileService/RegisterFile", "LedgerService/Append",
		"StartWorkflow:claimfile", "RunWorkflow:claimfile", "RunActivity:", "GatewayService/AdjudicateChunk",
		"ClaimsService/SubmitClaims", "LedgerService/AppendBatch", "view claims",
	}
	for _, spans := range traces.spans {
		all := strings.Join(spans, "\n")
		if !strings.Contains(all, steps[0]) {
			continue
		}
		for _, step := range steps {
			require.Contains(t, all, step, "the trace of the submission lacks a step")
		}
		return
	}
	t.Fatalf("no trace of the submission among %d", len(traces.spans))
}
