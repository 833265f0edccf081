package policies

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	yaml "go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/problem"
)

const (
	// MaxDocumentBytes bounds what is read: the limit of the RPCs' yaml fields.
	MaxDocumentBytes = 4 << 20
	// MaxRecordedBytes bounds a document's encoding, so that its event fits
	// the ledger's 921,600 bytes with room for the envelope.
	MaxRecordedBytes = 900_000
	// maxItems bounds every list while reading: the longest that any rule
	// allows, a fee schedule's prices. Rules are evaluated item by item.
	maxItems = 20_000
	// maxProblems bounds an answer: a wrong file can break every rule thousands of times.
	maxProblems = 100
)

// ParsePlan reads, validates and lints one plan. The error is a
// *problem.Error of kind Invalid holding every problem found, each with rule
// id, field path and fix.
func ParsePlan(data []byte) (*policiesv1.PlanDocument, error) {
	return parse(data, &policiesv1.PlanDocument{}, LintPlan)
}

// ParseFeeSchedule is ParsePlan for a fee schedule.
func ParseFeeSchedule(data []byte) (*policiesv1.FeeSchedule, error) {
	return parse(data, &policiesv1.FeeSchedule{}, LintFeeSchedule)
}

// ParseContract is ParsePlan for a provider contract.
func ParseContract(data []byte) (*policiesv1.ProviderContract, error) {
	return parse(data, &policiesv1.ProviderContract{}, LintContract)
}

// ParseNetwork is ParsePlan for a provider network.
func ParseNetwork(data []byte) (*policiesv1.ProviderNetwork, error) {
	return parse(data, &policiesv1.ProviderNetwork{}, LintNetwork)
}

func parse[D proto.Message](data []byte, into D, lint func(D) []problem.Problem) (D, error) {
	var none D
	r, err := read(data, into)
	if err != nil {
		return none, err
	}
	if ps := r.judge(into, func() []problem.Problem { return lint(into) }); len(ps) > 0 {
		return none, invalid(ps)
	}
	return into, nil
}

// judge returns everything wrong with a document that was read, in the order
// of its lines: what couldn't be read, what breaks a field's rule, and what
// the lint finds. A finding that may only stand because something near it
// couldn't be read is left out: correcting that brings it back if it is true.
func (r *reader) judge(msg proto.Message, lint func() []problem.Problem) []problem.Problem {
	if n := proto.Size(msg); n > MaxRecordedBytes {
		return tooLarge(n)
	}
	unread := r.problems
	broken := slices.DeleteFunc(Validate(msg), func(p problem.Problem) bool {
		if _, given := r.places[p.FieldPath]; !given && slices.ContainsFunc(unread, func(q problem.Problem) bool { return parent(q.FieldPath) == parent(p.FieldPath) }) {
			return true // missing, perhaps under the name that wasn't understood
		}
		return slices.ContainsFunc(unread, func(q problem.Problem) bool {
			return within(p.FieldPath, q.FieldPath) || within(q.FieldPath, p.FieldPath)
		})
	})
	found := lint()
	if len(unread)+len(broken) > 0 {
		found = slices.DeleteFunc(found, func(p problem.Problem) bool {
			return p.RuleID == unreachable || p.RuleID == compiled || p.RuleID == compiledNetwork ||
				slices.ContainsFunc(unread, func(q problem.Problem) bool { return within(p.FieldPath, parent(q.FieldPath)) }) ||
				slices.ContainsFunc(broken, func(q problem.Problem) bool { return within(p.FieldPath, q.FieldPath) })
		})
	}
	all := slices.Concat(unread, broken, found)
	for i := range all {
		r.locate(&all[i])
	}
	slices.SortStableFunc(all, func(a, b problem.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return bounded(all)
}

// within tells whether a path is another or below it; everything is within "".
func within(path, of string) bool {
	rest, ok := strings.CutPrefix(path, of)
	return ok && (of == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// parent is the path of the message or list that holds a field.
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// locate gives a problem its place in the text: of the field, or of the
// nearest that holds it. One that has a place already has it within the value.
func (r *reader) locate(p *problem.Problem) {
	for path := p.FieldPath; ; path = parent(path) {
		at, ok := r.places[path]
		if !ok && path != "" {
			continue
		}
		line, column := p.Line, p.Column
		switch {
		case line == 0:
			p.Line, p.Column = at.line, at.column
		case at.block: // the text begins on the line below, indented as the writer liked
			p.Line, p.Column = at.line+line, 0
		case line == 1:
			p.Line, p.Column = at.line, at.column+column-1
		default: // a plain or quoted text over several lines is folded into one
			p.Line, p.Column = at.line, at.column
		}
		return
	}
}

// check validates msg by its message's rules and, where these hold, lints it:
// the lint may then rely on dates, codes and ids having their shape.
func check[D proto.Message](msg D, lint func(D) []problem.Problem) []problem.Problem {
	if n := proto.Size(msg); n > MaxRecordedBytes {
		return tooLarge(n)
	}
	if ps := Validate(msg); len(ps) > 0 {
		return ps
	}
	return bounded(lint(msg))
}

func tooLarge(n int) []problem.Problem {
	return []problem.Problem{{
		RuleID:  "document.size",
		Message: fmt.Sprintf("the document takes %d bytes when recorded; at most %d fit", n, MaxRecordedBytes),
		Fix:     "use ranges for runs of procedure codes, or split it into several documents",
	}}
}

func invalid(ps []problem.Problem) *problem.Error {
	return &problem.Error{Kind: problem.Invalid, Problems: bounded(ps)}
}

func bounded(ps []problem.Problem) []problem.Problem {
	if len(ps) > maxProblems {
		return ps[:maxProblems]
	}
	return ps
}

// Validate holds msg against the rules written beside its fields. Messages
// name the rule, never the value that broke it.
func Validate(msg proto.Message) []problem.Problem {
	err := protovalidate.Validate(msg)
	if err == nil {
		return nil
	}
	var ve *protovalidate.ValidationError
	if !errors.As(err, &ve) {
		return []problem.Problem{{RuleID: "document.unchecked", Message: "the document's rules could not be evaluated",
			Fix: "report this to the operator"}}
	}
	out := make([]problem.Problem, 0, len(ve.Violations))
	for _, v := range ve.Violations {
		message := v.Proto.GetMessage()
		if message == "" {
			message = "breaks the rule " + v.Proto.GetRuleId()
		}
		out = append(out, problem.Problem{
			RuleID:    "field." + v.Proto.GetRuleId(),
			FieldPath: protovalidate.FieldPathString(v.Proto.GetField()),
			Message:   message,
			Fix:       "see the field's description in documents.proto",
		})
	}
	return bounded(out)
}

// Read reads one YAML or JSON document into msg, in its message's JSON form:
// keys may be lowerCamelCase or snake_case. It is stricter than YAML: unknown
// and repeated keys, anchors and aliases, a second document and values of
// another kind are refused, each with its path, line and column. It does not apply
// the message's rules; see Validate.
//
// Text that looks like a number or a date need not be quoted: a procedure
// 99213 or a date 2026-01-01 is taken as it is written, leading zeros kept.
func Read(data []byte, msg proto.Message) error {
	r, err := read(data, msg)
	if err != nil {
		return err
	}
	if len(r.problems) > 0 {
		for i := range r.problems {
			r.locate(&r.problems[i])
		}
		return invalid(r.problems)
	}
	return nil
}

// read fills msg as far as it can; the error is for text that is no document.
func read(data []byte, msg proto.Message) (*reader, error) {
	if len(data) > MaxDocumentBytes {
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "document.size",
			Message: fmt.Sprintf("the document has %d bytes; at most %d are read", len(data), MaxDocumentBytes),
			Fix:     "split it into several documents"})
	}
	root, err := soleDocument(data)
	if err != nil {
		return nil, err
	}
	r := &reader{places: map[string]place{"": {line: root.Line, column: root.Column}}}
	r.message(root, msg.ProtoReflect(), "")
	return r, nil
}

// soleDocument parses data into the content node of its only document.
// Aliases stay unexpanded nodes here, so a small file can't grow in memory.
func soleDocument(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF), err == nil && len(doc.Content) == 0:
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "document.empty",
			Message: "the document is empty", Fix: "write the fields of one document, beginning with its id"})
	case err != nil:
		return nil, syntaxProblem(err)
	}
	switch err := dec.Decode(&more); {
	case errors.Is(err, io.EOF):
		return doc.Content[0], nil
	case err != nil:
		return nil, syntaxProblem(err)
	}
	return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "document.one",
		Message: "the file holds more than one document", Fix: "put each document into a file of its own"})
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// syntaxProblem keeps only the line of the parser's message: the rest may
// quote the file, and a wrong file may hold anything.
func syntaxProblem(err error) *problem.Error {
	where, line := "the document", 0
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		where = "line " + m[1]
		line, _ = strconv.Atoi(m[1])
	}
	return problem.New(problem.Invalid, problem.Problem{RuleID: "document.syntax", Line: line,
		Message: where + " is not valid YAML or JSON",
		Fix:     "check indentation, quotes and brackets at and above that line"})
}

// reader fills a message from nodes, collecting what doesn't fit, and
// remembers where each field's value stands.
type reader struct {
	problems []problem.Problem
	places   map[string]place // by path
}

// place is where a value begins: its first character, after a quote.
type place struct {
	line, column int
	block        bool // a | or > text, which begins on the next line
}

func placeOf(n *yaml.Node) place {
	at := place{line: n.Line, column: n.Column}
	switch n.Style {
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		at.column++
	case yaml.LiteralStyle, yaml.FoldedStyle:
		at.block = true
	}
	return at
}

func (r *reader) refuse(n *yaml.Node, rule, path, message, fix string) {
	if len(r.problems) < maxProblems {
		if _, known := r.places[path]; !known {
			r.places[path] = placeOf(n)
		}
		r.problems = append(r.problems, problem.Problem{RuleID: "document." + rule, FieldPath: path, Message: message, Fix: fix})
	}
}

func (r *reader) message(n *yaml.Node, m protoreflect.Message, path string) {
	if n.Kind != yaml.MappingNode {
		r.wrongKind(n, path, "fields with values")
		return
	}
	fields := m.Descriptor().Fields()
	seen := make(map[protoreflect.Name]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f := fields.ByJSONName(key.Value)
		if f == nil {
			f = fields.ByName(protoreflect.Name(key.Value))
		}
		switch {
		case f == nil:
			r.refuse(key, "unknown-field", join(path, printable(key.Value)), "no such field", suggestion(key.Value, fields))
		case seen[f.Name()]:
			r.refuse(key, "repeated-field", join(path, string(f.Name())), "the field is given twice", "keep one of the two")
		default:
			seen[f.Name()] = true
			r.field(value, m, f, join(path, string(f.Name())))
		}
	}
}

func (r *reader) field(n *yaml.Node, m protoreflect.Message, f protoreflect.FieldDescriptor, path string) {
	r.places[path] = placeOf(n)
	if !f.IsList() {
		if f.Message() != nil {
			r.message(n, m.Mutable(f).Message(), path)
		} else if v, ok := r.scalar(n, f, path); ok {
			m.Set(f, v)
		}
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.wrongKind(n, path, "a list")
		return
	}
	if len(n.Content) > maxItems {
		r.refuse(n, "list", path, fmt.Sprintf("the list has %d items; at most %d are read", len(n.Content), maxItems), "split the document")
		return
	}
	list := m.Mutable(f).List()
	for i, item := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		r.places[at] = placeOf(item)
		if f.Message() != nil {
			r.message(item, list.AppendMutable().Message(), at)
		} else if v, ok := r.scalar(item, f, at); ok {
			list.Append(v)
		}
	}
}

var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,18})$`)

func (r *reader) scalar(n *yaml.Node, f protoreflect.FieldDescriptor, path string) (protoreflect.Value, bool) {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode || tag == "!!null" {
		r.wrongKind(n, path, "a "+kindName(f.Kind()))
		return protoreflect.Value{}, false
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		// A bare true or null is more likely a mistake than a name.
		if tag == "!!str" && utf8.ValidString(n.Value) || tag == "!!int" || tag == "!!float" || tag == "!!timestamp" {
			return protoreflect.ValueOfString(n.Value), true
		}
	case protoreflect.BoolKind:
		if tag == "!!bool" && (n.Value == "true" || n.Value == "false") {
			return protoreflect.ValueOfBool(n.Value == "true"), true
		}
	case protoreflect.Int64Kind:
		// 64-bit numbers may be quoted, as protobuf's JSON form writes them.
		if v, err := strconv.ParseInt(n.Value, 10, 64); err == nil && decimal.MatchString(n.Value) && tag != "!!float" {
			return protoreflect.ValueOfInt64(v), true
		}
	case protoreflect.Uint32Kind:
		if v, err := strconv.ParseUint(n.Value, 10, 32); err == nil && tag == "!!int" && decimal.MatchString(n.Value) {
			return protoreflect.ValueOfUint32(uint32(v)), true
		}
	}
	r.wrongKind(n, path, "a "+kindName(f.Kind()))
	return protoreflect.Value{}, false
}

func (r *reader) wrongKind(n *yaml.Node, path, want string) {
	if n.Kind == yaml.AliasNode {
		r.refuse(n, "alias", path, "anchors and aliases are not read", "write the value out")
		return
	}
	fix := "write " + want
	switch {
	case strings.HasSuffix(path, "_cents"):
		fix = "write whole US cents: 1250 is $12.50"
	case strings.HasSuffix(path, "_bps"):
		fix = "write basis points: 2000 is 20 %"
	case want == "a text":
		fix = "put the text in quotes"
	case want == "a yes or no":
		fix = "write true or false"
	}
	r.refuse(n, "kind", path, "expected "+want, fix)
}

func kindName(k protoreflect.Kind) string {
	switch k {
	case protoreflect.StringKind:
		return "text"
	case protoreflect.BoolKind:
		return "yes or no"
	}
	return "whole number"
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_]{1,60}$`)

// printable returns key when it can be a field's name. Anything else may be a
// value from a file that isn't a document at all.
func printable(key string) string {
	if plainKey.MatchString(key) {
		return key
	}
	return "(unreadable key)"
}

// suggestion names the field that was probably meant.
func suggestion(key string, fields protoreflect.FieldDescriptors) string {
	if !plainKey.MatchString(key) {
		return "remove it"
	}
	best, distance := "", min(4, len(key)/2+1)
	for i := range fields.Len() {
		for _, name := range []string{string(fields.Get(i).Name()), fields.Get(i).JSONName()} {
			if d := editDistance(key, name); d < distance {
				best, distance = name, d
			}
		}
	}
	if best == "" {
		return "remove it, or see documents.proto for the fields there are"
	}
	return "did you mean " + best + "?"
}

// editDistance is Levenshtein's, on bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
