package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Better says which way a figure improves.
type Better string

// The two ways.
const (
	Higher Better = "higher"
	Lower  Better = "lower"
)

// Figure is one measured thing over all rounds.
type Figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"` // median of the rounds
	Unit   string  `json:"unit"`
	Better Better  `json:"better"`
	Also   Better  `json:"direction"` // the same, under the name that the first readers of the file know
	// Spread is the largest round less the smallest, in the figure's unit.
	Spread float64 `json:"spread"`
	// Rounds as measured, in order.
	Rounds []float64 `json:"rounds"`
}

// Report collects figures, in the order in which they first appear.
type Report struct{ figures []*Figure }

// Add notes a round's value.
func (r *Report) Add(name string, value float64, unit string, better Better) {
	i := slices.IndexFunc(r.figures, func(f *Figure) bool { return f.Name == name })
	if i < 0 {
		i = len(r.figures)
		r.figures = append(r.figures, &Figure{Name: name, Unit: unit, Better: better, Also: better})
	}
	f := r.figures[i]
	f.Rounds = append(f.Rounds, value)
}

// Figures returns what was measured, medians and spreads made up.
func (r *Report) Figures() []Figure {
	out := make([]Figure, len(r.figures))
	for i, f := range r.figures {
		sorted := slices.Sorted(slices.Values(f.Rounds))
		out[i] = *f
		out[i].Value = (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
		out[i].Spread = sorted[len(sorted)-1] - sorted[0]
	}
	return out
}

// Print writes the figures as a table for people.
func (r *Report) Print(w io.Writer) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"figure", "median", "unit", "better", "spread", "rounds"})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}, {Number: 5, Align: text.AlignRight}})
	for _, f := range r.Figures() {
		spread := "0 %"
		if f.Value != 0 {
			spread = fmt.Sprintf("%.0f %%", 100*f.Spread/f.Value)
		}
		t.AppendRow(table.Row{f.Name, number(f.Value), f.Unit, f.Better, spread, len(f.Rounds)})
	}
	t.Render()
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Write writes the figures as JSON, whole or not at all.
func (r *Report) Write(path string) error {
	raw, err := json.MarshalIndent(r.Figures(), "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	draft := path + ".tmp"
	if err := os.WriteFile(draft, append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(draft, path)
}
