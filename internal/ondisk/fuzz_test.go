package ondisk

import "testing"

// What an xattr of a layer holds is refused, or is the same when it is written again.
func FuzzMarks(f *testing.F) {
	for _, value := range []string{"", "\x00\x04\x00\x00", "\x00\x24\x00\x01" + "0123456789abcdef0123456789abcdef", "U+1", "L-3", "a", "i"} {
		f.Add([]byte(value))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if d, err := parseMetacopy(value); err == nil {
			_, again := Trusted.MetacopyXattr(d)
			if d2, err := parseMetacopy(again); err != nil || d2 != d {
				t.Errorf("metacopy: %x is written as %x, %v", value, again, err)
			}
		}
		if l, ok := ParseLinkCount(value); ok {
			if again, ok := ParseLinkCount(l.Encode()); !ok || again != l {
				t.Errorf("nlink: %q is %+v and then %+v", value, l, again)
			}
		}
		if h, ok := ParseIndexName(string(value)); ok {
			if again, ok := ParseIndexName(h.IndexName()); h.IndexName() != "" && (!ok || again != h) {
				t.Errorf("index: %q is %+v and then %+v", value, h, again)
			}
		}
		if flags := ParseProtattr(value); flags != ParseProtattr(EncodeProtattr(flags)) {
			t.Errorf("protattr: %q is %x and then %x", value, flags, ParseProtattr(EncodeProtattr(flags)))
		}
	})
}
