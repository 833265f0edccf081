package eventstore_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/eventstore/eventstoretest"
	"github.com/probity-health/probity/services/problem"
)

func TestMemory(t *testing.T) {
	eventstoretest.Run(t, func(*testing.T) eventstore.Store {
		return eventstore.NewMemory(eventstore.MemoryOptions{})
	})
}

func TestRemote(t *testing.T) {
	eventstoretest.Run(t, func(t *testing.T) eventstore.Store {
		remote, _ := serve(t, eventstore.NewMemory(eventstore.MemoryOptions{}))
		return remote
	})
}

func serve(t *testing.T, mem *eventstore.Memory) (*eventstore.Remote, *eventstoretest.Ledger) {
	t.Helper()
	ledger := eventstoretest.NewLedger(mem)
	mux := http.NewServeMux()
	mux.Handle(ledgerv1connect.NewLedgerServiceHandler(ledger))
	srv := httptest.NewUnstartedServer(mux)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	client := ledgerv1connect.NewLedgerServiceClient(srv.Client(), srv.URL)
	return eventstore.NewRemote(client, eventstore.RemoteOptions{MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond}), ledger
}

func erased(n string) proto.Message { return &eventsv1.SubjectKeyDestroyed{Subject: n} }

func commit(request, stream string, expected int64, events ...proto.Message) eventstore.Commit {
	return eventstore.Commit{Log: "claims", RoutingKey: "k", RequestID: request,
		Writes: []eventstore.Write{{Stream: stream, Expected: expected, Events: events}}}
}

// Given answers that get lost, when an append is sent, then it is recorded
// once and answered.
func TestRemoteRetriesWithoutRepeating(t *testing.T) {
	ctx := context.Background()
	remote, ledger := serve(t, eventstore.NewMemory(eventstore.MemoryOptions{}))
	ledger.Inject(eventstoretest.LoseAck, eventstoretest.Refuse, eventstoretest.LoseAck)
	a, err := remote.Append(ctx, commit("r1", "test-1", eventstore.NoStream, erased("a")))
	require.NoError(t, err)
	require.True(t, a.Replayed, "the first try was recorded; the answer is a repetition of it")
	require.Zero(t, ledger.Pending())

	ledger.Inject(eventstoretest.LoseAck, eventstoretest.Refuse)
	out, err := remote.AppendBatch(ctx, []eventstore.Commit{
		commit("r2", "test-1", 0, erased("b")),
		commit("r3", "test-1", 9, erased("c")),
	})
	require.NoError(t, err)
	require.NoError(t, out[0].Err)
	require.True(t, eventstore.IsConflict(out[1].Err))

	ledger.Inject(eventstoretest.Refuse)
	events, err := remote.Read(ctx, "claims", "k", "test-1", 0)
	require.NoError(t, err)
	require.Len(t, events, 2)
}

// Given a ledger that stays away, then attempts are bounded and the error is
// one that the caller may retry.
func TestRemoteGivesUp(t *testing.T) {
	ctx := context.Background()
	remote, ledger := serve(t, eventstore.NewMemory(eventstore.MemoryOptions{}))
	for range 100 {
		ledger.Inject(eventstoretest.Refuse)
	}
	_, err := remote.Append(ctx, commit("r", "test-1", eventstore.NoStream, erased("a")))
	require.True(t, problem.Is(err, problem.Unavailable), "got %v", err)
	require.Equal(t, 88, ledger.Pending(), "twelve attempts")
	out, err := remote.AppendBatch(ctx, []eventstore.Commit{commit("r", "test-1", eventstore.NoStream, erased("a"))})
	require.NoError(t, err)
	require.True(t, problem.Is(out[0].Err, problem.Unavailable))
	require.Equal(t, 76, ledger.Pending())
}

// Given a caller whose time runs out while the ledger is away, then it is
// told that it may retry, and it is told soon.
func TestRemoteHonoursTheDeadline(t *testing.T) {
	remote, ledger := serve(t, eventstore.NewMemory(eventstore.MemoryOptions{}))
	for range 100 {
		ledger.Inject(eventstoretest.Refuse)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := remote.Append(ctx, commit("r", "test-1", eventstore.NoStream, erased("a")))
	require.True(t, problem.Is(err, problem.Unavailable), "got %v", err)
	require.Equal(t, 100, ledger.Pending(), "nothing was tried for a caller that had gone")
}

// Given connections that end and break, when a log is followed, then every
// event arrives once and in order.
func TestFollowSurvivesBrokenConnections(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	mem := eventstore.NewMemory(eventstore.MemoryOptions{})
	remote, ledger := serve(t, mem)
	for range 8 {
		ledger.Inject(eventstoretest.CutStream, eventstoretest.BreakStream)
	}
	const events = 100
	// Each event is appended once the one before it has come, so that no
	// batch holds them all and every fault has a stream to hit.
	came := make(chan struct{}, events)
	came <- struct{}{}
	go func() {
		for i := range events {
			<-came
			if _, err := mem.Append(ctx, commit(string(rune('a'+i)), "test-1", int64(i-1), erased("x"))); err != nil {
				t.Errorf("append: %v", err)
			}
		}
	}()
	var revisions []uint64
	err := remote.Follow(ctx, "claims", nil, nil, func(_ context.Context, b eventstore.Batch) error {
		for _, e := range b.Events {
			revisions = append(revisions, e.Revision)
			came <- struct{}{}
		}
		if len(revisions) >= events {
			stop()
		}
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, ledger.Pending(), "every connection was broken that was to be")
	require.Len(t, revisions, events)
	for i, r := range revisions {
		require.Equal(t, uint64(i), r)
	}
}

// Given a ledger whose head goes backwards, then following halts: skipping or
// repeating would be worse.
func TestFollowHaltsWhenTheLedgerGoesBack(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	mem := eventstore.NewMemory(eventstore.MemoryOptions{})
	remote, ledger := serve(t, mem)
	ledger.Inject(eventstoretest.RewindHead)
	_, err := mem.Append(ctx, commit("1", "test-1", eventstore.NoStream, erased("x")))
	require.NoError(t, err)
	n := 1
	err = remote.Follow(ctx, "claims", nil, nil, func(_ context.Context, b eventstore.Batch) error {
		_, err := mem.Append(ctx, eventstore.Commit{Log: "claims", RoutingKey: "elsewhere", RequestID: string(rune('0' + n)),
			Writes: []eventstore.Write{{Stream: "test-2", Expected: eventstore.Any, Events: []proto.Message{erased("y")}}}})
		n++
		return err
	})
	require.True(t, problem.Is(err, problem.Internal), "got %v", err)
	require.ErrorContains(t, err, "backwards")
}

// Given an event that this build can't read, when a log is followed, then all
// before it is delivered and the error says where to go on.
func TestFollowStopsBeforeWhatItCannotRead(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	refuse := eventstore.Codec{}.Upcast(&eventsv1.MemberEnrolled{}, &eventsv1.MemberEnrolled{}, func(proto.Message) (proto.Message, error) {
		return nil, eventstore.ErrMalformed
	})
	mem := eventstore.NewMemory(eventstore.MemoryOptions{Codec: refuse})
	for i, e := range []proto.Message{erased("a"), &eventsv1.MemberEnrolled{}, erased("b")} {
		_, err := mem.Append(ctx, commit(string(rune('0'+i)), "test-1", eventstore.Any, erased("first of commit"), e))
		require.NoError(t, err)
	}
	var got []eventstore.Recorded
	collect := func(_ context.Context, b eventstore.Batch) error {
		got = append(got, b.Events...)
		if len(got) == 4 {
			stop()
		}
		return nil
	}
	err := mem.Follow(ctx, "claims", nil, nil, collect)
	var bad *eventstore.DecodeError
	require.ErrorAs(t, err, &bad)
	require.ErrorIs(t, err, eventstore.ErrMalformed)
	require.Equal(t, uint64(1), bad.Position.Index)
	require.Len(t, got, 2, "the commit before, and not half of the bad one")

	err = mem.Follow(ctx, "claims", map[uint32]uint64{bad.Position.Shard: bad.Position.Index + 1}, nil, collect)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, got, 4)
}

// Given someone who always writes first, when deciding, then attempts are
// bounded and the refusal may be retried.
func TestDecideIsBounded(t *testing.T) {
	ctx := context.Background()
	mem := eventstore.NewMemory(eventstore.MemoryOptions{})
	asked := 0
	_, err := eventstore.Decide(ctx, mem, 3, func(context.Context) (eventstore.Commit, error) {
		asked++
		_, err := mem.Append(ctx, commit(string(rune('0'+asked)), "test-1", eventstore.Any, erased("rival")))
		return commit("mine", "test-1", int64(asked-2), erased("mine")), err
	})
	require.Equal(t, 3, asked)
	require.True(t, problem.Is(err, problem.Unavailable), "got %v", err)
	require.True(t, eventstore.IsConflict(err), "the cause is kept")

	a, err := eventstore.Decide(ctx, mem, 3, func(context.Context) (eventstore.Commit, error) { return eventstore.Commit{}, nil })
	require.NoError(t, err)
	require.Zero(t, a, "nothing to record is no error")
}

func TestMemoryFaults(t *testing.T) {
	ctx := context.Background()
	mem := eventstore.NewMemory(eventstore.MemoryOptions{})
	mem.Inject(eventstore.FaultRefused, eventstore.FaultLostAck)
	c := commit("r", "test-1", eventstore.NoStream, erased("a"))
	for range 2 {
		_, err := mem.Append(ctx, c)
		require.True(t, problem.Is(err, problem.Unavailable))
	}
	a, err := mem.Append(ctx, c)
	require.NoError(t, err)
	require.True(t, a.Replayed)
}

func TestCodecUpcasts(t *testing.T) {
	// Given three generations of one fact.
	codec := eventstore.Codec{}.
		Upcast(&eventsv1.SubjectKeyDestroyed{}, &eventsv1.MemberEnrolled{}, func(old proto.Message) (proto.Message, error) {
			return &eventsv1.MemberEnrolled{Subject: old.(*eventsv1.SubjectKeyDestroyed).GetSubject()}, nil
		}).
		Upcast(&eventsv1.MemberEnrolled{}, &eventsv1.PolicyCreated{}, func(proto.Message) (proto.Message, error) {
			return &eventsv1.PolicyCreated{}, nil
		})
	e, err := codec.Encode(erased("a"))
	require.NoError(t, err)
	m, err := codec.Decode(e)
	require.NoError(t, err)
	require.IsType(t, &eventsv1.PolicyCreated{}, m, "lifted to the newest")
	require.Equal(t, []string{
		"probity.events.v1.MemberEnrolled", "probity.events.v1.PolicyCreated", "probity.events.v1.SubjectKeyDestroyed",
	}, codec.Sources([]string{"probity.events.v1.PolicyCreated"}), "asking for the newest asks for the older")
	require.Empty(t, codec.Sources(nil), "all stays all")

	// A cycle of upcasters is an error, not a hang.
	cycle := codec.Upcast(&eventsv1.PolicyCreated{}, &eventsv1.SubjectKeyDestroyed{}, func(proto.Message) (proto.Message, error) {
		return erased("again"), nil
	})
	_, err = cycle.Decode(e)
	require.ErrorIs(t, err, eventstore.ErrMalformed)
}

func TestCodecRefuses(t *testing.T) {
	var codec eventstore.Codec
	for _, name := range []string{"", "probity.events.v1.Nothing", "probity.claims.v1.Claim", "google.protobuf.Any"} {
		_, err := codec.Decode(&ledgerv1.Event{Type: name})
		require.ErrorIs(t, err, eventstore.ErrUnknownType, name)
	}
	_, err := codec.Decode(&ledgerv1.Event{Type: "probity.events.v1.MemberEnrolled", Payload: []byte{0xff}})
	require.ErrorIs(t, err, eventstore.ErrMalformed)
	_, err = codec.Encode(&eventsv1.SubjectKeyDestroyed{Subject: string(make([]byte, 1<<20))})
	require.True(t, problem.Is(err, problem.Invalid))
}

func FuzzDecode(f *testing.F) {
	var codec eventstore.Codec
	seed, err := codec.Encode(&eventsv1.MemberEnrolled{Subject: "sub_1", BirthIndex: []byte{1}})
	require.NoError(f, err)
	f.Add(seed.GetType(), seed.GetPayload())
	f.Add("probity.events.v1.ClaimDecided", []byte{0x0a, 0x00})
	f.Fuzz(func(t *testing.T, name string, payload []byte) {
		m, err := codec.Decode(&ledgerv1.Event{Type: name, Payload: payload})
		if err != nil {
			return
		}
		// What decodes, encodes, and to something that decodes to the same.
		e, err := codec.Encode(m)
		require.NoError(t, err)
		again, err := codec.Decode(e)
		require.NoError(t, err)
		e2, err := codec.Encode(again)
		require.NoError(t, err)
		require.Equal(t, e.GetPayload(), e2.GetPayload())
	})
}

func FuzzToken(f *testing.F) {
	f.Add("v1:claims/3/48120")
	f.Add("v1:claims/03/1")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		p, ok, err := eventstore.ParseToken(token)
		if err != nil {
			require.True(t, problem.Is(err, problem.Invalid))
			return
		}
		if ok {
			require.Equal(t, token, p.Token(), "one position, one token")
		}
	})
}

// asked records the token that each read waits for.
type asked struct {
	ledgerv1connect.LedgerServiceClient
	tokens []string
}

func (a *asked) ReadStream(ctx context.Context, r *ledgerv1.ReadStreamRequest) (*ledgerv1.ReadStreamResponse, error) {
	a.tokens = append(a.tokens, r.MinToken)
	return a.LedgerServiceClient.ReadStream(ctx, r)
}

// Given a request that is repeated after a later one, then reads still wait
// for the later one: a first answer's lower position hides nothing.
func TestRepetitionKeepsTheFloor(t *testing.T) {
	ctx := context.Background()
	mux := http.NewServeMux()
	mux.Handle(ledgerv1connect.NewLedgerServiceHandler(eventstoretest.NewLedger(eventstore.NewMemory(eventstore.MemoryOptions{}))))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	client := &asked{LedgerServiceClient: ledgerv1connect.NewLedgerServiceClient(srv.Client(), srv.URL)}
	remote := eventstore.NewRemote(client, eventstore.RemoteOptions{})
	first := commit("r1", "test-1", eventstore.NoStream, erased("a"))
	_, err := remote.Append(ctx, first)
	require.NoError(t, err)
	second, err := remote.Append(ctx, commit("r2", "test-1", 0, erased("b")))
	require.NoError(t, err)
	again, err := remote.Append(ctx, first)
	require.NoError(t, err)
	require.True(t, again.Replayed)
	_, err = remote.Read(ctx, "claims", "k", "test-1", 0)
	require.NoError(t, err)
	require.Equal(t, []string{second.Token}, client.tokens)
}

// Given many callers that append at once, then their appends share calls,
// each gets its own answer, and one that is refused takes no other with it.
func TestAppendsOfManyTravelTogether(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle(ledgerv1connect.NewLedgerServiceHandler(eventstoretest.NewLedger(eventstore.NewMemory(eventstore.MemoryOptions{}))))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	client := &counted{LedgerServiceClient: ledgerv1connect.NewLedgerServiceClient(srv.Client(), srv.URL)}
	remote := eventstore.NewRemote(client, eventstore.RemoteOptions{})
	const callers = 200
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			stream := fmt.Sprintf("test-%d", i)
			expected, bad := eventstore.NoStream, i%10 == 3
			if bad {
				expected = 5
			}
			res, err := remote.Append(t.Context(), commit(fmt.Sprintf("r%d", i), stream, expected, erased("a")))
			switch {
			case bad && !eventstore.IsConflict(err):
				t.Errorf("append %d should conflict: %v", i, err)
			case !bad && (err != nil || res.Replayed || res.Revisions[0] != 0):
				t.Errorf("append %d: %+v %v", i, res, err)
			}
		})
	}
	wg.Wait()
	require.Less(t, client.calls.Load(), int64(callers), "fewer calls than appends")
}

// counted counts the calls that append.
type counted struct {
	ledgerv1connect.LedgerServiceClient
	calls atomic.Int64
}

func (c *counted) Append(ctx context.Context, r *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error) {
	c.calls.Add(1)
	return c.LedgerServiceClient.Append(ctx, r)
}

func (c *counted) AppendBatch(ctx context.Context, r *ledgerv1.AppendBatchRequest) (*ledgerv1.AppendBatchResponse, error) {
	c.calls.Add(1)
	return c.LedgerServiceClient.AppendBatch(ctx, r)
}
