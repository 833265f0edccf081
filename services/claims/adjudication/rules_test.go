package adjudication

import (
	"os"
	"regexp"
	"testing"

	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/fixtures"
)

// Every rule's codes are in the published lists, have words here, and stand
// under a group and beside a remark that X12's usage notes allow.
func TestEveryRulesCodesAreKnownAndAllowed(t *testing.T) {
	lists := map[string]string{}
	for _, file := range []string{"carc.tsv", "rarc.tsv"} {
		b, err := os.ReadFile(fixtures.Dir(t, "codes/"+file))
		if err != nil {
			t.Fatal(err)
		}
		lists[file] = string(b)
	}
	listed := func(file, code string) bool {
		return regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(code) + `(\t|$)`).MatchString(lists[file])
	}
	seen := map[string]bool{}
	for _, r := range Rules() {
		if seen[r.ID] {
			t.Errorf("%s stands twice", r.ID)
		}
		seen[r.ID] = true
		if _, ok := codes.CARC(r.CARC); !ok || !listed("carc.tsv", r.CARC) {
			t.Errorf("%s: CARC %s isn't known", r.ID, r.CARC)
		}
		if _, ok := codes.RARC(r.RARC); r.RARC != "" && (!ok || !listed("rarc.tsv", r.RARC)) {
			t.Errorf("%s: RARC %s isn't known", r.ID, r.RARC)
		}
		if _, ok := codes.Group(r.Group); !ok || !codes.GroupAllowed(r.Group, r.CARC) {
			t.Errorf("%s: %s-%s isn't allowed", r.ID, r.Group, r.CARC)
		}
		if codes.NeedsRemark(r.CARC) && r.RARC == "" {
			t.Errorf("%s: CARC %s needs a remark", r.ID, r.CARC)
		}
	}
}
