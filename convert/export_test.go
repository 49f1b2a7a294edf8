package convert

import "testing"

// SealDirManifest gives a manifest that was changed the sums of what it says.
func SealDirManifest(t testing.TB, m *DirManifest) []byte {
	t.Helper()
	for i := range m.Files {
		alone := m.file(i)
		if _, err := alone.seal(); err != nil {
			t.Fatal(err)
		}
		m.Files[i].SelfSHA256 = alone.SelfSHA256
	}
	text, err := m.seal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
