package eventstore

import (
	"errors"
	"fmt"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/problem"
)

// maxCommit is what fits a Kafka record beside its envelope; the ledger
// refuses more, so Memory does.
const maxCommit = 900 << 10

// validate applies the ledger's own rules (ledger.proto) and says which was
// broken, without the value.
func validate(m proto.Message) error {
	if err := protovalidate.Validate(m); err != nil {
		var v *protovalidate.ValidationError
		if !errors.As(err, &v) {
			return problem.As(err)
		}
		out := &problem.Error{Kind: problem.Invalid}
		for _, violation := range v.Violations {
			out.Problems = append(out.Problems, problem.Problem{
				RuleID:    "eventstore." + violation.Proto.GetRuleId(),
				FieldPath: protovalidate.FieldPathString(violation.Proto.GetField()),
				Message:   "the ledger refuses the request: " + protovalidate.FieldPathString(violation.Proto.GetField()) + " breaks " + violation.Proto.GetRuleId(),
				Fix:       "see the field's rules in probity/ledger/v1/ledger.proto",
			})
		}
		return out
	}
	req, ok := m.(*ledgerv1.AppendRequest)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for i, w := range req.GetWrites() {
		if seen[w.GetStream()] {
			return problem.Invalidf("eventstore.stream.twice", fmt.Sprintf("writes[%d].stream", i), "a commit writes each stream at most once; put its events in one write")
		}
		seen[w.GetStream()] = true
	}
	if size := proto.Size(req); size > maxCommit {
		return problem.Invalidf("eventstore.commit.size", "writes", "the commit is %d bytes; at most %d fit one record", size, maxCommit)
	}
	return nil
}
