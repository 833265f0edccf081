package cli

import (
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// meter shows progress on standard error: a bar on a terminal, and elsewhere
// a plain line at every tenth, so that a log of a batch stays short.
type meter struct {
	app     *app
	what    string
	total   int64
	current int64
	told    int64 // tenths already written
	bars    *mpb.Progress
	bar     *mpb.Bar
}

func (a *app) progress(what string, total int64) *meter {
	m := &meter{app: a, what: what, total: total}
	if a.ErrTerminal && total > 0 && a.Env("TERM") != "dumb" {
		m.bars = mpb.New(mpb.WithOutput(a.Err), mpb.WithWidth(40))
		m.bar = m.bars.AddBar(total,
			mpb.PrependDecorators(decor.Name(what+" ")),
			mpb.AppendDecorators(decor.Percentage()),
			mpb.BarRemoveOnComplete())
	}
	return m
}

// set tells how far it has come.
func (m *meter) set(n int64) {
	m.current = n
	if m.bar != nil {
		m.bar.SetCurrent(min(n, m.total))
		return
	}
	if m.total <= 0 || m.app.ErrTerminal {
		return
	}
	if tenth := n * 10 / m.total; tenth > m.told {
		m.told = tenth
		m.app.say("%s: %d of %d", m.what, n, m.total)
	}
}

// done takes the bar away, finished or not.
func (m *meter) done() {
	if m.bar != nil {
		m.bar.Abort(true)
		m.bars.Wait()
	}
}
