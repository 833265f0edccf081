package generate

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
)

// Model decides claims as they are made; package naive is one. It is told of
// documents and persons before their claims.
type Model interface {
	// Add takes a document, enrolment or authorisation in its JSON form.
	Add(document []byte) error
	// AddTable takes a table of claim edits as CMS lays it out, by its name
	// and the first day it governs.
	AddTable(name, from string, text []byte) error
	// Decide takes a Claim's JSON and returns what is to be written of its outcome.
	Decide(claim []byte) (outcome any, err error)
	// Forget drops a family all of whose claims are decided.
	Forget(memberID string)
}

// Names in a generated directory.
const (
	FileProfessional  = "claims-837p.edi"
	FileInstitutional = "claims-837i.edi"
	FileClaims        = "claims.jsonl"   // Claim, one a line, in the files' order within a family
	FileExpected      = "expected.jsonl" // what the model makes of each
	FileMembers       = "members.jsonl"  // probity.policies.v1.Enrollment
	FileAuthorized    = "authorizations.jsonl"
)

// Written counts what WriteDir wrote.
type Written struct {
	Claims         int            `json:"claims"`
	Institutional  int            `json:"institutional"`
	Families       int            `json:"families"`
	Members        int            `json:"members"`
	Authorizations int            `json:"authorizations"`
	Kinds          map[string]int `json:"kinds"`
}

// WriteDir writes the world and its claims into a directory, which must be
// empty or not there yet, and what model expects of them.
func (w *World) WriteDir(dir string, model Model, progress func(claims int)) (Written, error) {
	sum := Written{Kinds: map[string]int{}}
	if found, err := os.ReadDir(dir); err == nil && len(found) > 0 {
		return sum, fmt.Errorf("generate: %s is not empty", dir)
	}
	if err := w.writeDocuments(dir, model); err != nil {
		return sum, err
	}
	d := &directory{world: w, dir: dir, model: model, sum: &sum}
	defer d.close()
	if err := d.open(); err != nil {
		return sum, err
	}
	for f := range w.Families() {
		if err := d.family(f); err != nil {
			return sum, err
		}
		if progress != nil {
			progress(sum.Claims)
		}
	}
	return sum, d.finish()
}

func (w *World) writeDocuments(dir string, model Model) error {
	documents := w.Documents()
	for _, t := range documents.Edits {
		if err := model.AddTable(t.Name(), t.From(), t.Text); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, "edits"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "edits", t.Name()+"_"+t.Quarter+".txt"), t.Text, 0o644); err != nil {
			return err
		}
	}
	for _, m := range documents.All() {
		folder, id := "", ""
		switch x := m.(type) {
		case *policiesv1.FeeSchedule:
			folder, id = "fee_schedules", x.GetFeeScheduleId()
		case *policiesv1.ProviderNetwork:
			folder, id = "networks", x.GetNetworkId()
		case *policiesv1.PlanDocument:
			folder, id = "plans", x.GetPlanId()
		case *policiesv1.ProviderContract:
			folder, id = "contracts", x.GetContractId()
		case *policiesv1.Policy:
			folder, id = "policies", x.GetPolicyId()
		}
		text := JSON(m)
		if err := model.Add(text); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, folder, id+".json"), append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// directory is what is being written.
type directory struct {
	world *World
	dir   string
	model Model
	sum   *Written

	files    []*os.File
	buffers  []*bufio.Writer
	members  *bufio.Writer
	auths    *bufio.Writer
	claims   *bufio.Writer
	expected *bufio.Writer
	x12      [2]*Writer // made with their first claim: an interchange holds at least one
}

func (d *directory) create(name string) (*bufio.Writer, error) {
	f, err := os.Create(filepath.Join(d.dir, name))
	if err != nil {
		return nil, err
	}
	b := bufio.NewWriterSize(f, 64<<10)
	d.files, d.buffers = append(d.files, f), append(d.buffers, b)
	return b, nil
}

func (d *directory) open() (err error) {
	for name, into := range map[string]**bufio.Writer{FileMembers: &d.members, FileAuthorized: &d.auths, FileClaims: &d.claims, FileExpected: &d.expected} {
		if *into, err = d.create(name); err != nil {
			return err
		}
	}
	return nil
}

func (d *directory) family(f *Family) error {
	d.sum.Families++
	for _, e := range f.Enrollments {
		d.sum.Members++
		if err := d.person(d.members, e); err != nil {
			return err
		}
	}
	for _, a := range f.Authorizations {
		d.sum.Authorizations++
		if err := d.person(d.auths, a); err != nil {
			return err
		}
	}
	for k, list := range [][]Claim{f.Professional, f.Institutional} {
		for i := range list {
			if err := d.claim(k, &list[i]); err != nil {
				return err
			}
		}
	}
	d.model.Forget(f.memberID)
	return nil
}

func (d *directory) person(into *bufio.Writer, m proto.Message) error {
	text := JSON(m)
	if err := d.model.Add(text); err != nil {
		return err
	}
	return line(into, text)
}

func (d *directory) claim(k int, c *Claim) error {
	d.sum.Claims++
	d.sum.Institutional += k
	d.sum.Kinds[c.Kind]++
	if d.x12[k] == nil {
		out, err := d.create([]string{FileProfessional, FileInstitutional}[k])
		if err != nil {
			return err
		}
		d.x12[k] = d.world.NewWriter(out, []string{"P", "I"}[k])
	}
	if err := d.x12[k].Claim(c); err != nil {
		return err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := line(d.claims, text); err != nil {
		return err
	}
	outcome, err := d.model.Decide(text)
	if err != nil {
		return err
	}
	if text, err = json.Marshal(outcome); err != nil {
		return err
	}
	return line(d.expected, text)
}

func line(into *bufio.Writer, text []byte) error {
	if _, err := into.Write(text); err != nil {
		return err
	}
	return into.WriteByte('\n')
}

// finish makes sure that everything is in the files.
func (d *directory) finish() error {
	var errs []error
	for _, x := range d.x12 {
		if x != nil {
			errs = append(errs, x.Close())
		}
	}
	for _, b := range d.buffers {
		errs = append(errs, b.Flush())
	}
	for _, f := range d.files {
		errs = append(errs, f.Close())
	}
	d.files = nil
	return errors.Join(errs...)
}

func (d *directory) close() {
	for _, f := range d.files {
		_ = f.Close()
	}
}
