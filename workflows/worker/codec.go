package worker

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"

	keyfile "github.com/probity-health/probity/services/keys"
)

const (
	// KeySize is the length of a payload key in bytes.
	KeySize = 32

	metadataEncoding = "encoding"
	metadataKey      = "key"
	metadataWorkflow = "workflow"
	encodingSealed   = "binary/probity-aes256gcm"
	nonceSize        = 12
)

// ErrPayload says that a payload doesn't open: another key, another
// workflow's payload, or a changed one. It doesn't say which.
var ErrPayload = errors.New("worker: a workflow payload does not open with the keys given for this workflow")

// Keys are the payload keys of an installation: Current seals; Current and
// Previous open. To rotate, give every process the new key as Previous first,
// then make it Current; an old key may go when the last workflow that used
// it is past its retention.
type Keys struct {
	Current  [KeySize]byte
	Previous [][KeySize]byte
}

// ReadKeys reads key files as package keys makes and reads them.
func ReadKeys(current string, previous ...string) (Keys, error) {
	var keys Keys
	var err error
	if keys.Current, err = keyfile.ReadKeyFile(current); err != nil {
		return Keys{}, err
	}
	for _, path := range previous {
		key, err := keyfile.ReadKeyFile(path)
		if err != nil {
			return Keys{}, err
		}
		keys.Previous = append(keys.Previous, key)
	}
	return keys, nil
}

// id names a key without revealing it.
func keyID(key [KeySize]byte) string {
	sum := sha256.Sum256(append([]byte("probity payload key id\x00"), key[:]...))
	return fmt.Sprintf("%x", sum[:8])
}

// Codec returns the codec of one workflow's payloads, for who handles payloads
// outside a workflow's client or worker: the codec endpoint.
func Codec(keys Keys, workflowID string) converter.PayloadCodec {
	c := newCodec(keys)
	c.workflowID = workflowID
	return c
}

// WorkflowOf returns the id of the workflow that a sealed payload says it
// belongs to, and "" for one in clear or sealed before payloads said so. Only
// opening the payload with that workflow's codec shows whether it is true.
func WorkflowOf(p *commonpb.Payload) string {
	if string(p.GetMetadata()[metadataEncoding]) != encodingSealed {
		return ""
	}
	return string(p.GetMetadata()[metadataWorkflow])
}

func newCodec(keys Keys) *codec {
	c := &codec{byID: map[string][KeySize]byte{}, current: keyID(keys.Current)}
	for _, key := range append([][KeySize]byte{keys.Current}, keys.Previous...) {
		c.byID[keyID(key)] = key
	}
	return c
}

// Converters returns the data and failure converters that every client and
// worker of the installation must share. Payloads are sealed before they
// leave the process, and error texts and stack traces with them, so the
// Temporal server and its database hold only opaque bytes and ids.
func Converters(keys Keys) (converter.DataConverter, converter.FailureConverter) {
	data := converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), newCodec(keys))
	return data, newFailures(data)
}

// failures is the SDK's failure converter bound to a workflow: by itself the
// SDK's never learns whose failure it converts.
type failures struct {
	converter.FailureConverter
	data converter.DataConverter
}

func newFailures(data converter.DataConverter) *failures {
	return &failures{data: data, FailureConverter: temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter: data, EncodeCommonAttributes: true,
	})}
}

// WithSerializationContext implements converter.FailureConverterWithSerializationContext.
func (f *failures) WithSerializationContext(ctx converter.SerializationContext) converter.FailureConverter {
	return newFailures(converter.WithDataConverterSerializationContext(f.data, ctx))
}

// codec seals payloads with AES-256-GCM under a key derived for the one
// workflow (RFC 5869), with the workflow's id as associated data. So a payload
// moved to another workflow doesn't open, and the random nonces of one key
// stay far below the 2^32 that NIST SP 800-38D allows.
type codec struct {
	byID       map[string][KeySize]byte // never changed after Converters
	current    string
	workflowID string
}

var _ converter.PayloadCodecWithSerializationContext = (*codec)(nil)

// WithSerializationContext binds the codec to a workflow. An activity's
// payloads belong to the workflow that scheduled it.
func (c *codec) WithSerializationContext(ctx converter.SerializationContext) converter.PayloadCodec {
	bound := *c
	switch ctx := ctx.(type) {
	case converter.WorkflowSerializationContext:
		bound.workflowID = ctx.WorkflowID
	case converter.ActivitySerializationContext:
		bound.workflowID = ctx.WorkflowID
	}
	return &bound
}

// Encode seals.
func (c *codec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	gcm, err := c.cipher(c.current)
	if err != nil {
		return nil, err
	}
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		plain, err := proto.Marshal(p)
		if err != nil {
			return nil, err
		}
		box := make([]byte, nonceSize, nonceSize+len(plain)+gcm.Overhead())
		_, _ = rand.Read(box) // never fails
		out[i] = &commonpb.Payload{
			Metadata: map[string][]byte{
				metadataEncoding: []byte(encodingSealed), metadataKey: []byte(c.current),
				// Temporal keeps the id in clear anyway. Its tools hand payloads to
				// the codec endpoint without saying whose they are.
				metadataWorkflow: []byte(c.workflowID),
			},
			Data: gcm.Seal(box, box, plain, []byte(c.workflowID)),
		}
	}
	return out, nil
}

// Decode opens. A payload in clear is refused: nobody with a key writes one.
func (c *codec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		if string(p.GetMetadata()[metadataEncoding]) != encodingSealed || len(p.GetData()) < nonceSize {
			return nil, ErrPayload
		}
		if named := WorkflowOf(p); named != "" && named != c.workflowID {
			return nil, ErrPayload
		}
		gcm, err := c.cipher(string(p.GetMetadata()[metadataKey]))
		if err != nil {
			return nil, err
		}
		plain, err := gcm.Open(nil, p.GetData()[:nonceSize], p.GetData()[nonceSize:], []byte(c.workflowID))
		if err != nil {
			return nil, ErrPayload
		}
		out[i] = new(commonpb.Payload)
		if err := proto.Unmarshal(plain, out[i]); err != nil {
			return nil, ErrPayload
		}
	}
	return out, nil
}

func (c *codec) cipher(id string) (cipher.AEAD, error) {
	key, known := c.byID[id]
	if c.workflowID == "" || !known {
		return nil, ErrPayload
	}
	derived, err := hkdf.Key(sha256.New, key[:], nil, "probity workflow payload\x00"+c.workflowID, KeySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
