package peers

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Figure is one measured thing over all rounds, in the form of bench/latest.json.
type Figure struct {
	Name   string    `json:"name"`
	Value  float64   `json:"value"` // median of the rounds
	Unit   string    `json:"unit"`
	Better string    `json:"better"`    // "higher" or "lower"
	Also   string    `json:"direction"` // the same, as bench/latest.json calls it
	Spread float64   `json:"spread"`    // largest round less the smallest
	Rounds []float64 `json:"rounds"`
}

// Report is what a run measured, in the order in which it was first met.
type Report []*Figure

func (r *Report) add(name string, value float64, unit, better string) {
	i := slices.IndexFunc(*r, func(f *Figure) bool { return f.Name == name })
	if i < 0 {
		i = len(*r)
		*r = append(*r, &Figure{Name: name, Unit: unit, Better: better, Also: better})
	}
	f := (*r)[i]
	f.Rounds = append(f.Rounds, value)
	sorted := slices.Sorted(slices.Values(f.Rounds))
	f.Value = (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
	f.Spread = sorted[len(sorted)-1] - sorted[0]
}

// short adds the figures that others track by a name without spaces: those
// that were measured, once more, in the unit that the name says.
func (r *Report) short(callers []int) {
	again := func(name, of, unit string, times float64) {
		i := slices.IndexFunc(*r, func(f *Figure) bool { return f.Name == of })
		if i < 0 {
			return
		}
		f := (*r)[i]
		for _, v := range f.Rounds {
			r.add(name, v*times, unit, f.Better)
		}
	}
	for _, n := range callers {
		c, at := fmt.Sprintf("c%d", n), ", "+calledBy(n)
		again("append."+c+".p50_vs_raw", inProcess+" / "+rawBatches+", p50"+at, "×", 1)
		again("append."+c+".vs_raw", inProcess+" / "+rawBatches+at, "×", 1)
		again("append."+c+".vs_tessera", inProcess+" / "+tesseraNamed+at, "×", 1)
		again("append_rpc."+c+".vs_jetstream", overLoopback+" / "+jetStreamName+at, "×", 1)
		again("append_rpc."+c+".vs_postgres", overLoopback+" / "+postgresName+at, "×", 1)
		again("append_rpc."+c+".vs_etcd", overLoopback+" / "+etcdName+at, "×", 1)
		again("final."+c+".vs_tessera_published", fourFinal+" / "+tesseraPublic+at, "×", 1)
		again("final."+c+".p99_ms", fourFinal+at+", p99", "ms", 1)
	}
	again("replay.events_per_s", replayNamed, "events/s", 1)
	again("receipt.bytes", "receipt, four parties", "bytes", 1)
	again("receipt.verify_us", "receipt, four parties, verified", "µs", 1000)
	again("disk.bytes_per_event", diskNamed, "bytes", 1)
}

// Print writes the figures as a table for people.
func (r Report) Print(w io.Writer) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"figure", "median", "unit", "spread", "rounds"})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}, {Number: 4, Align: text.AlignRight}})
	for _, f := range r {
		spread := "0 %"
		if f.Value != 0 {
			spread = fmt.Sprintf("%.0f %%", 100*f.Spread/f.Value)
		}
		form := "%.2f"
		if f.Value >= 100 {
			form = "%.0f"
		}
		t.AppendRow(table.Row{f.Name, fmt.Sprintf(form, f.Value), f.Unit, spread, len(f.Rounds)})
	}
	t.Render()
}

// Write writes the figures as JSON.
func (r Report) Write(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}
