package server

import (
	"errors"
	"fmt"
	"regexp"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// quietJSON is the JSON codec with its tongue held: protojson's errors quote
// the value they tripped over, and that may be a name or a diagnosis. It
// tells the place instead.
type quietJSON struct{ name string }

// Name implements connect.Codec.
func (c quietJSON) Name() string { return c.name }

// IsBinary implements connect's marshaler of GET requests.
func (quietJSON) IsBinary() bool { return false }

// Marshal implements connect.Codec.
func (quietJSON) Marshal(message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is not a protobuf message", message)
	}
	return protojson.MarshalOptions{}.Marshal(m)
}

// MarshalStable implements connect's marshaler of GET requests.
func (c quietJSON) MarshalStable(message any) ([]byte, error) { return c.Marshal(message) }

var jsonPlace = regexp.MustCompile(`\(line \d+:\d+\)`)

// Unmarshal implements connect.Codec. Unknown fields are passed over: a newer
// caller may speak to an older service.
func (quietJSON) Unmarshal(data []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a protobuf message", message)
	}
	if len(data) == 0 {
		return errors.New("the body is empty; an empty message is {}")
	}
	err := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m)
	if err == nil {
		return nil
	}
	if place := jsonPlace.FindString(err.Error()); place != "" {
		return fmt.Errorf("the body is not the JSON of %s %s", m.ProtoReflect().Descriptor().Name(), place)
	}
	return fmt.Errorf("the body is not the JSON of %s", m.ProtoReflect().Descriptor().Name())
}
