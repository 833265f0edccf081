// Package schematest holds a hand-written check of requests to their schema.
package schematest

import (
	"math"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// texts are tried for a string field until one satisfies the field's rules.
var texts = []string{"1", "", "11", "2026-02-10", "0930", "claims", "claim-1", "fil_aaaaaaaaaaaaaaaaaaaaaaaaaa"}

// depth bounds how deep messages are filled, for those that hold themselves.
const depth = 8

// Holds checks that fits passes a request of type M with every field filled,
// and the empty one only where the schema does; and that of that request,
// changed in any one field to something extreme, it passes nothing that the
// schema refuses. Every rule of the schema must have refused something.
func Holds[M proto.Message](t *testing.T, fits func(M) bool) {
	t.Helper()
	var zero M
	whole := zero.ProtoReflect().New()
	fill(t, whole, depth)
	require.NoError(t, protovalidate.Validate(whole.Interface()), "what this test fills a message with doesn't satisfy its schema; add to texts")
	check := func(m proto.Message) bool { return fits(m.(M)) } //nolint:forcetypeassert // made from it
	require.True(t, check(whole.Interface()), "a request with every field filled")
	if check(zero.ProtoReflect().New().Interface()) {
		require.NoError(t, protovalidate.Validate(zero.ProtoReflect().New().Interface()))
	}
	h := holder{t: t, root: whole.Interface(), fits: check}
	h.message(whole, "")
}

type holder struct {
	t    *testing.T
	root proto.Message
	fits func(proto.Message) bool
}

// message changes every field of m, which is root or within it, and those within it.
func (h *holder) message(m protoreflect.Message, path string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		at := path + "." + string(fd.Name())
		if of := fd.ContainingOneof(); of != nil && m.WhichOneof(of) != fd {
			continue
		}
		was := m.Get(fd)
		if fd.IsList() { // a list that stays as it is when the field is cleared
			was = m.NewField(fd)
			was.List().Append(m.Get(fd).List().Get(0))
		}
		refused := false
		try := func(what string, change func()) {
			change()
			ok := protovalidate.Validate(h.root) == nil
			refused = refused || !ok
			if !ok && h.fits(h.root) {
				h.t.Errorf("%s: %s is refused by the schema and passes the check", at, what)
			}
			m.Set(fd, was)
		}
		switch {
		case fd.IsMap():
			h.t.Fatalf("%s: maps aren't known to this test", at)
		case fd.IsList():
			list := was.List()
			try("none", func() { m.Clear(fd) })
			try("many", func() {
				long := m.NewField(fd).List()
				for range 1001 {
					long.Append(list.Get(0))
				}
				m.Set(fd, protoreflect.ValueOfList(long))
			})
			if fd.Message() != nil {
				h.message(list.Get(0).Message(), at)
				break
			}
			for what, v := range extremes(fd) {
				try(what+" element", func() {
					one := m.NewField(fd).List()
					one.Append(v)
					m.Set(fd, protoreflect.ValueOfList(one))
				})
			}
		case fd.Message() != nil:
			try("unset", func() { m.Clear(fd) })
			if !strings.HasPrefix(string(fd.Message().FullName()), "google.protobuf.") {
				h.message(was.Message(), at)
			}
		default:
			for what, v := range extremes(fd) {
				try(what, func() { m.Set(fd, v) })
			}
		}
		if ruled(fd) && !refused {
			h.t.Errorf("%s: it has rules and nothing this test tried breaks them", at)
		}
	}
}

func ruled(fd protoreflect.FieldDescriptor) bool {
	rules, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	return rules != nil
}

// extremes are values of a field's kind that rules mostly refuse.
func extremes(fd protoreflect.FieldDescriptor) map[string]protoreflect.Value {
	of := protoreflect.ValueOf
	switch fd.Kind() {
	case protoreflect.StringKind:
		return map[string]protoreflect.Value{"empty": of(""), "long": of(strings.Repeat("x", 1001)), "odd": of("\n"), "letter": of("x")}
	case protoreflect.BytesKind:
		return map[string]protoreflect.Value{"empty": of([]byte{}), "large": of(make([]byte, 1<<20))}
	case protoreflect.Int64Kind:
		return map[string]protoreflect.Value{"zero": of(int64(0)), "least": of(int64(math.MinInt64)), "below": of(int64(-1)), "most": of(int64(math.MaxInt64))}
	case protoreflect.Uint32Kind:
		return map[string]protoreflect.Value{"zero": of(uint32(0)), "most": of(uint32(math.MaxUint32))}
	case protoreflect.EnumKind:
		return map[string]protoreflect.Value{"zero": of(protoreflect.EnumNumber(0)), "unknown": of(protoreflect.EnumNumber(999))}
	}
	return nil // nothing that has rules
}

// fill sets every field of m.
func fill(t *testing.T, m protoreflect.Message, deeper int) {
	t.Helper()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if of := fd.ContainingOneof(); of != nil && m.WhichOneof(of) != nil {
			continue
		}
		set := func(v protoreflect.Value) { m.Set(fd, v) }
		if fd.IsList() {
			set = func(v protoreflect.Value) {
				m.Clear(fd)
				m.Mutable(fd).List().Append(v)
			}
		}
		switch fd.Kind() {
		case protoreflect.MessageKind:
			if deeper == 0 {
				continue
			}
			var within protoreflect.Message
			if fd.IsList() {
				within = m.Mutable(fd).List().AppendMutable().Message()
			} else {
				within = m.Mutable(fd).Message()
			}
			fill(t, within, deeper-1)
		case protoreflect.StringKind:
			for _, s := range texts {
				if set(protoreflect.ValueOf(s)); !broken(m, fd) {
					break
				}
			}
		case protoreflect.BoolKind:
			set(protoreflect.ValueOf(true))
		case protoreflect.EnumKind:
			set(protoreflect.ValueOf(protoreflect.EnumNumber(1)))
		case protoreflect.Int64Kind:
			set(protoreflect.ValueOf(int64(1)))
		case protoreflect.Int32Kind:
			set(protoreflect.ValueOf(int32(1)))
		case protoreflect.Uint32Kind:
			set(protoreflect.ValueOf(uint32(1)))
		case protoreflect.BytesKind:
			set(protoreflect.ValueOf([]byte("x")))
		default:
			t.Fatalf("%s: fields of this kind aren't known to this test", fd.FullName())
		}
	}
}

// broken tells whether a field of m breaks a rule of its own.
func broken(m protoreflect.Message, fd protoreflect.FieldDescriptor) bool {
	only := protovalidate.WithFilter(protovalidate.FilterFunc(func(_ protoreflect.Message, d protoreflect.Descriptor) bool {
		return d == fd || d == m.Descriptor()
	}))
	return protovalidate.Validate(m.Interface(), only) != nil
}
