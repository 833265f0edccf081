package eventstore

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

// Given an event of which fields are left out, then the rest is what it was,
// whatever else its bytes hold and however they are ordered.
func TestLeavingLeavesTheRest(t *testing.T) {
	codec := Codec{}.Leaving(&eventsv1.ClaimReceived{}, "claim").Leaving(&eventsv1.ClaimReceived{}, "file_ordinal", "paper")
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 20, 40)
		piece := rapid.Custom(func(t *rapid.T) []byte {
			e := &eventsv1.ClaimReceived{}
			switch rapid.IntRange(0, 5).Draw(t, "field") {
			case 0:
				e.ClaimId = text.Draw(t, "id")
			case 1:
				e.Claim = &typev1.Sealed{Subject: text.Draw(t, "subject"), Box: []byte(text.Draw(t, "box"))}
			case 2:
				e.FileOrdinal = rapid.Uint32().Draw(t, "ordinal")
			case 3:
				e.Paper = true
			case 4:
				e.ChargeCents = rapid.Int64().Draw(t, "charge")
			case 5: // unknown to this program
				return protowire.AppendString(protowire.AppendTag(nil, 5000, protowire.BytesType), "new")
			}
			b, err := proto.Marshal(e)
			require.NoError(t, err)
			return b
		})
		var payload []byte
		for _, p := range rapid.SliceOf(piece).Draw(t, "pieces") {
			payload = append(payload, p...)
		}
		before := string(payload)
		e := &ledgerv1.Event{Type: TypeOf(&eventsv1.ClaimReceived{}), Payload: payload}
		whole, err := Codec{}.Decode(e)
		require.NoError(t, err)
		want := whole.(*eventsv1.ClaimReceived)
		want.Claim, want.FileOrdinal, want.Paper = nil, 0, false
		got, err := codec.Decode(e)
		require.NoError(t, err)
		require.True(t, proto.Equal(want, got), "%v and %v", want, got)
		require.Equal(t, before, string(payload), "the payload is others' too")
	})
	// Another codec made of the same one leaves out its own, and types by themselves.
	e, err := Codec{}.Encode(&eventsv1.ClaimDecided{ClaimId: "c", Decision: &typev1.Sealed{Subject: "s"}})
	require.NoError(t, err)
	got, err := codec.Decode(e)
	require.NoError(t, err)
	require.NotNil(t, got.(*eventsv1.ClaimDecided).GetDecision())
	require.Panics(t, func() { Codec{}.Leaving(&eventsv1.ClaimDecided{}, "no_such_field") })
}

// FuzzLeaving: whatever a payload holds, where the whole of it is an event so is the rest.
func FuzzLeaving(f *testing.F) {
	b, err := proto.Marshal(&eventsv1.ClaimReceived{ClaimId: "c", Claim: &typev1.Sealed{Subject: "s", Box: []byte("x")}, Paper: true})
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add([]byte{0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	codec := Codec{}.Leaving(&eventsv1.ClaimReceived{}, "claim")
	f.Fuzz(func(t *testing.T, payload []byte) {
		e := &ledgerv1.Event{Type: TypeOf(&eventsv1.ClaimReceived{}), Payload: payload}
		whole, err := Codec{}.Decode(e)
		got, lean := codec.Decode(e)
		if err != nil {
			return
		}
		require.NoError(t, lean)
		want := whole.(*eventsv1.ClaimReceived)
		want.Claim = nil
		// Of another wire type it would be an unknown field; it is left out by its number.
		const claim = 7
		want.ProtoReflect().SetUnknown(without(nil, want.ProtoReflect().GetUnknown(), []protowire.Number{claim}))
		require.True(t, proto.Equal(want, got))
	})
}
