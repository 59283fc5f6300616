package store

import (
	"slices"

	bolt "go.etcd.io/bbolt"
)

// maxFacts is how many facts of one upstream are kept: those of the servers that have
// taken turns at its address last.
const maxFacts = 8

// Fact is what was learned of a server. The store does not look into it.
type Fact struct {
	Fingerprint string // of what the server announces
	Text        string
}

// facts are those of one upstream, the latest first.
type facts []Fact

func (f facts) cost() int64 {
	n := int64(recordCost)
	for _, fact := range f {
		n += int64(32 + len(fact.Fingerprint) + len(fact.Text))
	}
	return n
}

func (f facts) chunks() []chunk {
	var body []byte
	for _, fact := range f {
		body = appendText(body, "", fact.Fingerprint)
		body = appendText(body, "", fact.Text)
	}
	return headed([]chunk{{suffix: string(tagFacts), body: body}}, [4]uint64{0, 0, uint64(len(f))})
}

// factsID names the record of an upstream, whose servers have no user.
func factsID(upstream string) recordID {
	return recordID{Key: Key{Upstream: upstream}, kind: kindFacts}
}

// Fact returns what was last put for an upstream and a fingerprint, or "".
func (s *Store) Fact(upstream, fingerprint string) string {
	known, _ := s.get(factsID(upstream)).(facts)
	return known.text(fingerprint)
}

func (f facts) text(fingerprint string) string {
	for _, fact := range f {
		if fact.Fingerprint == fingerprint {
			return fact.Text
		}
	}
	return ""
}

// PutFact replaces what is known for an upstream and a fingerprint. Of one upstream
// only the latest few are kept.
func (s *Store) PutFact(upstream string, fact Fact) {
	s.merging.Lock()
	defer s.merging.Unlock()
	known, _ := s.get(factsID(upstream)).(facts)
	others := slices.DeleteFunc(slices.Clone(known), func(f Fact) bool { return f.Fingerprint == fact.Fingerprint })
	all := append(facts{fact}, others...)
	if all = all[:min(len(all), maxFacts)]; valid(all) {
		s.put(factsID(upstream), all)
	}
}

// InspectFact returns what the file path has for an upstream and a fingerprint, ""
// for nothing. It changes nothing. inUse reports that a running process has the file,
// so that it cannot be read.
func InspectFact(path, upstream, fingerprint string) (text string, inUse bool, err error) {
	d := &disk{path: path, broken: make(chan *damage, 1)}
	if finding, err := Inspect(path); err != nil || finding != findingGood {
		return "", finding == findingInUse, err
	}
	err = guard(func() (err error) {
		d.db, err = openBolt(path, bolt.Options{ReadOnly: true}, &d.file)
		return err
	})
	if err != nil {
		return "", false, asDamage(err)
	}
	r, _, err := d.read(factsID(upstream))
	_ = d.close(err != nil) // nothing has been written
	known, _ := r.(facts)
	return known.text(fingerprint), false, err
}

// decodeFacts reads the only chunk of facts.
func decodeFacts(r *reader) (all facts) {
	for r.more() {
		f := Fact{Fingerprint: r.text(0), Text: ""}
		r.texts = [2]string{}
		f.Text = r.text(0)
		r.texts = [2]string{}
		if !r.bad {
			all = append(all, f)
		}
	}
	return all
}
