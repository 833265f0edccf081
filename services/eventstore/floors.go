package eventstore

// routed is a routing key of a log.
type routed struct{ log, key string }

// floors remember the highest position of the routing keys that were used
// last, at least maxFloors/2 and at most maxFloors of them. A floor that is
// forgotten costs a conflict and a reload, never a wrong answer. The zero value
// is ready to use; it is not safe for concurrent use.
type floors struct {
	young, old map[routed]floor
}

type floor struct {
	shard uint32
	index uint64
}

// raise takes a position in, unless a higher one is known.
func (f *floors) raise(key routed, at Position) {
	if known, ok := f.find(key); ok && known.index >= at.Index {
		at.Shard, at.Index = known.shard, known.index
	}
	// What is used again stays young.
	if _, ok := f.young[key]; !ok && len(f.young) >= maxFloors/2 {
		f.old, f.young = f.young, nil
	}
	if f.young == nil {
		// As many as there were come again, if any did.
		f.young = make(map[routed]floor, max(fewFloors, len(f.old)))
	}
	f.young[key] = floor{at.Shard, at.Index}
}

// of returns what is remembered of a routing key.
func (f *floors) of(key routed) (Position, bool) {
	known, ok := f.find(key)
	return Position{Log: key.log, Shard: known.shard, Index: known.index}, ok
}

func (f *floors) find(key routed) (floor, bool) {
	known, ok := f.young[key]
	if !ok {
		known, ok = f.old[key]
	}
	return known, ok
}
