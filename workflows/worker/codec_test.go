package worker_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/workflows/worker"
)

func keys(current byte, previous ...byte) worker.Keys {
	k := worker.Keys{Current: [32]byte{current}}
	for _, p := range previous {
		k.Previous = append(k.Previous, [32]byte{p})
	}
	return k
}

func in(k worker.Keys, workflowID string) converter.DataConverter {
	data, _ := worker.Converters(k)
	return converter.WithDataConverterSerializationContext(data, converter.WorkflowSerializationContext{Namespace: "probity", WorkflowID: workflowID})
}

func TestAnySealedPayloadOpensInItsWorkflowOnlyAndOnlyUnchanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		reason := rapid.StringN(1, 200, -1).Draw(t, "reason")
		id := rapid.StringMatching(`claim:clm_[a-z2-7]{26}`).Draw(t, "workflow")
		sealed, err := in(keys(1), id).ToPayload(&workflowsv1.ReviewClaimRequest{Reason: reason})
		require.NoError(t, err)

		var opened workflowsv1.ReviewClaimRequest
		require.NoError(t, in(keys(1), id).FromPayload(sealed, &opened))
		require.Equal(t, reason, opened.GetReason())

		require.ErrorIs(t, in(keys(1), id+"x").FromPayload(sealed, &opened), worker.ErrPayload, "another workflow")
		require.ErrorIs(t, in(keys(2), id).FromPayload(sealed, &opened), worker.ErrPayload, "another key")
		changed := proto.Clone(sealed).(*commonpb.Payload)
		at := rapid.IntRange(0, len(changed.Data)-1).Draw(t, "changed byte")
		changed.Data[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
		require.ErrorIs(t, in(keys(1), id).FromPayload(changed, &opened), worker.ErrPayload, "a changed payload")
	})
}

func TestAnActivitysPayloadsAreItsWorkflows(t *testing.T) {
	data, _ := worker.Converters(keys(1))
	sealed, err := in(keys(1), "file:1").ToPayload("x")
	require.NoError(t, err)
	var opened string
	activity := converter.WithDataConverterSerializationContext(data, converter.ActivitySerializationContext{WorkflowID: "file:1", ActivityType: "file.decide"})
	require.NoError(t, activity.FromPayload(sealed, &opened))
}

func TestNothingIsSealedOrOpenedOutsideAWorkflowOrInClear(t *testing.T) {
	data, _ := worker.Converters(keys(1))
	_, err := data.ToPayload("x")
	require.ErrorIs(t, err, worker.ErrPayload)

	clear, err := converter.GetDefaultDataConverter().ToPayload("x")
	require.NoError(t, err)
	var opened string
	require.ErrorIs(t, in(keys(1), "file:1").FromPayload(clear, &opened), worker.ErrPayload)
}

func TestKeysRotateWithoutLosingOpenWorkflows(t *testing.T) {
	// Given a payload sealed with the old key.
	old, err := in(keys(1), "file:1").ToPayload("x")
	require.NoError(t, err)
	// When the new key is introduced as previous first, then made current.
	var opened string
	for _, k := range []worker.Keys{keys(1, 2), keys(2, 1)} {
		require.NoError(t, in(k, "file:1").FromPayload(old, &opened))
		fresh, err := in(k, "file:1").ToPayload("y")
		require.NoError(t, err)
		// Then every process of the rotation opens what any other seals.
		for _, other := range []worker.Keys{keys(1, 2), keys(2, 1)} {
			require.NoError(t, in(other, "file:1").FromPayload(fresh, &opened))
		}
	}
}

func TestAnErrorsTextAndDetailsAreSealed(t *testing.T) {
	_, failures := worker.Converters(keys(1))
	here := converter.WithFailureConverterSerializationContext(failures, converter.WorkflowSerializationContext{WorkflowID: "file:1"})
	f := here.ErrorToFailure(temporal.NewApplicationError("SECRET-TEXT", "invalid", "SECRET-DETAIL"))
	raw, err := proto.Marshal(f)
	require.NoError(t, err)
	require.False(t, bytes.Contains(raw, []byte("SECRET")))

	var app *temporal.ApplicationError
	require.True(t, errors.As(here.FailureToError(f), &app))
	require.Equal(t, "SECRET-TEXT", app.Message())
	require.Equal(t, "invalid", app.Type(), "the kind stays readable: retry policies are applied by the server")
}

func TestKeyFilesHoldExactlyThirtyTwoBytes(t *testing.T) {
	dir := t.TempDir()
	good, short := filepath.Join(dir, "good"), filepath.Join(dir, "short")
	require.NoError(t, os.WriteFile(good, []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))+"\n"), 0o600))
	require.NoError(t, os.WriteFile(short, []byte("letmein"), 0o600))

	k, err := worker.ReadKeys(good, good)
	require.NoError(t, err)
	require.Equal(t, byte(7), k.Current[31])
	require.Len(t, k.Previous, 1)
	_, err = worker.ReadKeys(short)
	require.ErrorContains(t, err, "32 bytes in base64")
	require.NotContains(t, err.Error(), "letmein")
	_, err = worker.ReadKeys(good, filepath.Join(dir, "absent"))
	require.Error(t, err)
}

func FuzzOpeningAPayload(f *testing.F) {
	f.Add([]byte("binary/probity-aes256gcm"), []byte("0123456789abcdef"), bytes.Repeat([]byte{1}, 60))
	f.Fuzz(func(t *testing.T, encoding, key, data []byte) {
		p := &commonpb.Payload{Metadata: map[string][]byte{"encoding": encoding, "key": key}, Data: data}
		var opened string
		require.Error(t, in(keys(1), "file:1").FromPayload(p, &opened))
	})
}
