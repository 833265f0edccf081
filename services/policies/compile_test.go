package policies

import (
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
)

// A field of a document that the engine never hears of would be a promise
// nobody keeps: each must change what the engine is given, or stand in the
// list of those that are not its business.
func TestEveryFieldOfADocumentReachesTheEngine(t *testing.T) {
	for _, c := range []struct {
		message proto.Message
		spec    func(proto.Message) any
		others  []string
	}{
		{&policiesv1.PlanDocument{}, func(m proto.Message) any { return planSpec(m.(*policiesv1.PlanDocument), "x@1") },
			[]string{"name", "payer_id", "effective", "dependent_age_limit"}},
		{&policiesv1.CostShare{}, func(m proto.Message) any { return costShare(m.(*policiesv1.CostShare)) }, nil},
		{&policiesv1.Benefit{}, func(m proto.Message) any { return benefitSpec(m.(*policiesv1.Benefit)) }, []string{"match"}},
		{&policiesv1.ServiceMatch{}, func(m proto.Message) any {
			return benefitSpec(&policiesv1.Benefit{Match: m.(*policiesv1.ServiceMatch)})
		}, nil},
		{&policiesv1.PlanRule{}, func(m proto.Message) any { return ruleSpec(m.(*policiesv1.PlanRule)) }, nil},
		{&policiesv1.Fee{}, func(m proto.Message) any { return feeSpec(m.(*policiesv1.Fee)) }, nil},
		{&policiesv1.FacilityRate{}, func(m proto.Message) any { return facilityRate(m.(*policiesv1.FacilityRate)) }, nil},
		{&policiesv1.ProviderContract{}, func(m proto.Message) any {
			d := m.(*policiesv1.ProviderContract)
			if len(d.GetFacilityRates()) > 0 {
				d.FacilityRates[0] = &policiesv1.FacilityRate{Name: "x", Method: &policiesv1.FacilityRate_PerDiemCents{PerDiemCents: 1}}
			}
			out, err := CompileContract(d, "x@1", adjudicationPeriod())
			if err != nil {
				t.Fatal(err)
			}
			return *out
		}, []string{"contract_id", "payer_id", "npis", "effective"}},
	} {
		fields := c.message.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			if slices.Contains(c.others, string(f.Name())) {
				continue
			}
			m := c.message.ProtoReflect().New()
			m.Set(f, something(m, f))
			if reflect.DeepEqual(c.spec(m.Interface()), c.spec(c.message)) {
				t.Errorf("%s: the engine never hears of it", f.FullName())
			}
		}
	}
}

// something is a value of the field that is not its zero; "coverage" and
// "aggregate" are the values of the two fields that are told by their words.
func something(m protoreflect.Message, f protoreflect.FieldDescriptor) protoreflect.Value {
	scalar := func() protoreflect.Value {
		switch f.Kind() {
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		case protoreflect.Int64Kind:
			return protoreflect.ValueOfInt64(7)
		case protoreflect.Uint32Kind:
			return protoreflect.ValueOfUint32(7)
		}
		return protoreflect.ValueOfString(map[protoreflect.Name]string{"plan_year": "coverage", "deductible_kind": "aggregate"}[f.Name()] + "")
	}
	if f.Kind() == protoreflect.StringKind && f.Name() != "plan_year" && f.Name() != "deductible_kind" {
		scalar = func() protoreflect.Value { return protoreflect.ValueOfString("x") }
	}
	switch {
	case f.IsList():
		list := m.NewField(f).List()
		if f.Message() != nil {
			list.AppendMutable()
		} else {
			list.Append(scalar())
		}
		return protoreflect.ValueOfList(list)
	case f.Message() != nil:
		inner := m.NewField(f)
		fields := f.Message().Fields()
		first := fields.Get(0)
		inner.Message().Set(first, something(inner.Message(), first))
		return inner
	}
	return scalar()
}

func adjudicationPeriod() adjudication.Period { return adjudication.Period{Start: 1} }
