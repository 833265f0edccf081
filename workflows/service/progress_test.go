package service_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/service"
)

// asked is a Temporal whose file workflows are stalled, and that counts who asks.
type asked struct {
	client.Client
	times int
}

func (a *asked) QueryWorkflow(context.Context, string, string, string, ...any) (converter.EncodedValue, error) {
	a.times++
	return stalled{}, nil
}

type stalled struct{ converter.EncodedValue }

func (stalled) Get(into any) error {
	into.(*workflowsv1.GetFileProgressResponse).Stage = claimfile.StageStalled
	return nil
}

// gone is a Temporal that has no such workflow.
type gone struct{ client.Client }

func (gone) QueryWorkflow(context.Context, string, string, string, ...any) (converter.EncodedValue, error) {
	return nil, serviceerror.NewNotFound("none")
}

type oneFile struct{ file *claimsv1.File }

func (f oneFile) GetFile(context.Context, *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error) {
	return &claimsv1.GetFileResponse{File: f.file}, nil
}

type everybody struct{}

func (everybody) Authorize(context.Context, string, identity.Resource) error { return nil }

func TestAFileThatMovesIsToldByItsRecordAlone(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	open := claimsv1.FileState_FILE_STATE_PROCESSING
	for name, c := range map[string]struct {
		file  *claimsv1.File
		stage string
		asks  int
	}{
		"just received": {&claimsv1.File{State: open, ClaimCount: 3, ReceivedTime: ago(time.Second)}, claimfile.StageWaiting, 0},
		"long received and nothing decided": {
			&claimsv1.File{State: open, ClaimCount: 3, ReceivedTime: ago(time.Minute)}, claimfile.StageStalled, 1,
		},
		"outcomes come": {
			&claimsv1.File{State: open, ClaimCount: 3, OutcomeCount: 2, ReceivedTime: ago(time.Minute), CompletedTime: ago(time.Second)}, claimfile.StageDeciding, 0,
		},
		"the last outcome just came": {
			&claimsv1.File{State: open, ClaimCount: 3, OutcomeCount: 3, ReceivedTime: ago(time.Minute), CompletedTime: ago(time.Second)}, claimfile.StageRemitting, 0,
		},
		"no outcome for long": {
			&claimsv1.File{State: open, ClaimCount: 3, OutcomeCount: 2, ReceivedTime: ago(time.Hour), CompletedTime: ago(time.Minute)}, claimfile.StageStalled, 1,
		},
		"complete": {
			&claimsv1.File{State: claimsv1.FileState_FILE_STATE_COMPLETE, ClaimCount: 3, OutcomeCount: 3, CompletedTime: ago(time.Hour)}, claimfile.StageComplete, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			temporal := &asked{}
			s := service.New(service.Deps{Temporal: temporal, Files: oneFile{c.file}, Authorizer: everybody{}, Now: func() time.Time { return now }})
			p, err := s.GetFileProgress(t.Context(), &workflowsv1.GetFileProgressRequest{FileId: "fil_x"})
			require.NoError(t, err)
			require.Equal(t, c.stage, p.GetStage())
			require.Equal(t, c.asks, temporal.times)
			require.Equal(t, c.file.GetOutcomeCount(), p.GetDone())
		})
	}
}

func TestAFileWhoseWorkflowIsGoneIsToldByItsRecord(t *testing.T) {
	file := &claimsv1.File{State: claimsv1.FileState_FILE_STATE_PROCESSING, ClaimCount: 3, OutcomeCount: 2, PaidCount: 2}
	s := service.New(service.Deps{Temporal: gone{}, Files: oneFile{file}, Authorizer: everybody{}})
	p, err := s.GetFileProgress(t.Context(), &workflowsv1.GetFileProgressRequest{FileId: "fil_x"})
	require.NoError(t, err)
	require.Equal(t, claimfile.StageDeciding, p.GetStage())
	require.EqualValues(t, 2, p.GetPaid())
}
