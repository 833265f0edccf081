package claims

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
)

// maxDifferences of one decision are told: the first says where to look.
const maxDifferences = 20

// differ collects where two messages of one type differ, in the order of
// their fields. What may describe a person is named by its path and not
// shown: a replay may be asked for by who may not read the decision.
type differ struct {
	found []*claimsv1.ReplayDifference
}

func (d *differ) add(path, recorded, replayed string) {
	if len(d.found) < maxDifferences {
		d.found = append(d.found, &claimsv1.ReplayDifference{Path: path, Recorded: recorded, Replayed: replayed})
	}
}

func (d *differ) messages(path string, a, b protoreflect.Message) {
	fields := a.Descriptor().Fields()
	ordered := make([]protoreflect.FieldDescriptor, fields.Len())
	for i := range ordered {
		ordered[i] = fields.Get(i)
	}
	slices.SortFunc(ordered, func(x, y protoreflect.FieldDescriptor) int { return int(x.Number()) - int(y.Number()) })
	for _, f := range ordered {
		at := path + "." + string(f.Name())
		switch {
		case f.IsMap():
			d.maps(at, a.Get(f).Map(), b.Get(f).Map())
		case f.IsList():
			d.lists(at, f, a.Get(f).List(), b.Get(f).List())
		case f.Message() != nil:
			if a.Has(f) != b.Has(f) {
				d.add(at, presence(a.Has(f)), presence(b.Has(f)))
			} else if a.Has(f) {
				d.messages(at, a.Get(f).Message(), b.Get(f).Message())
			}
		default:
			d.values(at, f, a.Get(f), b.Get(f))
		}
	}
}

func (d *differ) lists(at string, f protoreflect.FieldDescriptor, a, b protoreflect.List) {
	if a.Len() != b.Len() {
		d.add(at, fmt.Sprintf("%d of them", a.Len()), fmt.Sprintf("%d of them", b.Len()))
	}
	for i := range min(a.Len(), b.Len()) {
		one := fmt.Sprintf("%s[%d]", at, i)
		if f.Message() != nil {
			d.messages(one, a.Get(i).Message(), b.Get(i).Message())
		} else {
			d.values(one, f, a.Get(i), b.Get(i))
		}
	}
}

// maps compares text by text: the only maps there are hold an explanation's figures.
func (d *differ) maps(at string, a, b protoreflect.Map) {
	var keys []string
	collect := func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		if !slices.Contains(keys, k.String()) {
			keys = append(keys, k.String())
		}
		return true
	}
	a.Range(collect)
	b.Range(collect)
	slices.Sort(keys)
	for _, k := range keys {
		key := protoreflect.ValueOfString(k).MapKey()
		if !a.Has(key) || !b.Has(key) {
			d.add(at+"."+k, presence(a.Has(key)), presence(b.Has(key)))
		} else if a.Get(key).String() != b.Get(key).String() {
			d.add(at+"."+k, sealedText, sealedText)
		}
	}
}

func (d *differ) values(at string, f protoreflect.FieldDescriptor, a, b protoreflect.Value) {
	if f.Kind() == protoreflect.BytesKind {
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			d.add(at, hex.EncodeToString(a.Bytes()), hex.EncodeToString(b.Bytes()))
		}
		return
	}
	if a.Equal(b) {
		return
	}
	if !inClear(at, f) {
		d.add(at, sealedText, sealedText)
		return
	}
	if f.Enum() != nil {
		name := func(v protoreflect.Value) string {
			if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
				return string(e.Name())
			}
			return fmt.Sprint(v.Enum())
		}
		d.add(at, name(a), name(b))
		return
	}
	d.add(at, a.String(), b.String())
}

const sealedText = "(sealed)"

// inClear tells whether a field's like stands in clear on the ledger anyway:
// amounts, codes, rules and versions.
func inClear(path string, f protoreflect.FieldDescriptor) bool {
	if strings.HasPrefix(path, "history.") {
		return false
	}
	if strings.Contains(path, ".versions.") || strings.HasSuffix(string(f.Name()), "_cents") {
		return true
	}
	switch f.Name() {
	case "status", "group_code", "carc", "rarc", "rarcs", "rule_id", "codes", "number", "amount":
		return true
	}
	return false
}

func presence(there bool) string {
	if there {
		return "there"
	}
	return "absent"
}
