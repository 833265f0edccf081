package server

import (
	"reflect"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
)

// Quick tells of requests of type M, without the schema's interpreter, that
// they satisfy their schema. What fits doesn't pass goes to the schema, which
// alone refuses and says why; so fits may refuse too much and must never pass
// what the schema refuses (package schematest holds it to that). It is for
// before Run, and for the few requests that carry many things.
func Quick[M proto.Message](s *Server, fits func(M) bool) {
	s.quick[reflect.TypeFor[M]()] = func(m proto.Message) bool { return fits(m.(M)) } //nolint:forcetypeassert // by its type
}

// quick are the checks by type of message; fixed before Run.
type quick map[reflect.Type]func(proto.Message) bool

// Validate implements protovalidate.Validator.
func (q quick) Validate(m proto.Message, options ...protovalidate.ValidationOption) error {
	if fits := q[reflect.TypeOf(m)]; fits != nil && len(options) == 0 && fits(m) {
		return nil
	}
	return protovalidate.Validate(m, options...)
}
