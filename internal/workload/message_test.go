package workload

import (
	"bufio"
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEachPart(t *testing.T) {
	t.Parallel()
	big := message(7, make([]byte, maxPart+1))
	for name, c := range map[string]struct {
		in   []byte
		want []string
		left int
		err  bool
	}{
		"nothing":            {nil, nil, 0, false},
		"parts":              {append(message(1, []byte("a")), message(2, nil)...), []string{"1 a", "2 "}, 0, false},
		"numbers between":    {append([]byte{0x08, 0x80, 1, 0x15, 1, 2, 3, 4, 0x19, 1, 2, 3, 4, 5, 6, 7, 8}, message(1, []byte("a"))...), []string{"1 a"}, 0, false},
		"a large one":        {append(big, message(1, []byte("a"))...), []string{"1 a"}, 1, false},
		"a large one, cut":   {big[:100], nil, 1, true},
		"a part, cut":        {message(1, []byte("abc"))[:4], nil, 0, true},
		"a length, cut":      {[]byte{0x0a}, nil, 0, true},
		"a tag, cut":         {[]byte{0x80}, nil, 0, true},
		"field 0":            {[]byte{0x02, 0}, nil, 0, true},
		"a group":            {[]byte{0x0b}, nil, 0, true},
		"a number, cut":      {[]byte{0x08, 0x80}, nil, 0, true},
		"an endless number":  {append([]byte{0x08}, bytes.Repeat([]byte{0xff}, 20)...), nil, 0, true},
		"an endless length":  {protowire.AppendVarint([]byte{0x0a}, math.MaxUint64), nil, 0, true},
		"a length of 16 MiB": {protowire.AppendVarint([]byte{0x0a}, maxReply+1), nil, 0, true},
	} {
		var got []string
		left, err := eachPart(bufio.NewReader(bytes.NewReader(c.in)), func(field protowire.Number, b []byte) error {
			got = append(got, strings.Join([]string{string(rune('0' + field)), string(b)}, " "))
			return nil
		})
		if diff := cmp.Diff(c.want, got); diff != "" || left != c.left || (err != nil) != c.err {
			t.Errorf("%s: %d left, %v (-want +got):\n%s", name, left, err, diff)
		}
	}
	stop := errors.New("enough")
	if _, err := eachPart(bufio.NewReader(bytes.NewReader(message(1, nil))), func(protowire.Number, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// The requests say what Kubernetes' own types say.
func TestRequests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		got        []byte
		into, want proto.Message
	}{
		{readySandboxes(), &cri.ListPodSandboxRequest{}, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}}},
		{runningContainers(), &cri.ListContainersRequest{}, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}}},
		{statusOf("abc"), &cri.PodSandboxStatusRequest{}, &cri.PodSandboxStatusRequest{PodSandboxId: "abc", Verbose: true}},
	} {
		if err := proto.Unmarshal(c.got, c.into); err != nil || !proto.Equal(c.into, c.want) {
			t.Errorf("%v, %v, want %v", err, c.into, c.want)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/x"}]}}}`:           "/run/netns/x",
		`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}`:                                                "",
		`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"relative"}]}}}`:                              "",
		`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/` + strings.Repeat("x", 5000) + `"}]}}}`:    "",
		`{"runtimeSpec":{"linux":{"namespaces":[` + strings.Repeat(`{},`, 1000) + `{"type":"network","path":"/x"}]}}}`: "",
		`{"runtimeSpec":{"linux":{"namespaces":7}}}`:                                                                   "",
		`{"runtimeSpec":null}`: "",
		`{"pid":7}`:            "",
		`{"runtimeSpec":`:      "",
		`[]`:                   "",
		``:                     "",
	} {
		if got := parseNetwork([]byte(text)); got != want {
			t.Errorf("%.80q: %q, want %q", text, got, want)
		}
	}
}

// Whatever Kubernetes' own types read is read the same here, and nothing that
// breaks the bounds.
func FuzzParseSandbox(f *testing.F) {
	f.Add(marshal(f, sandboxOf("s1", "shop", "cart", uid, map[string]string{"app": "cart", "x": "y"})))
	ended := sandboxOf("s1", "shop", "cart", uid, nil)
	ended.State = cri.PodSandboxState_SANDBOX_NOTREADY
	f.Add(marshal(f, ended))
	f.Add([]byte{0x12, 0x02, 0x0a, 0x05})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok, err := parseSandbox(b, []string{"app"})
		var theirs cri.PodSandbox
		if proto.Unmarshal(b, &theirs) != nil {
			return // they check UTF-8 too
		}
		m := theirs.GetMetadata()
		if err != nil {
			t.Fatalf("%v, but it is %v", err, &theirs)
		}
		wanted := theirs.State == cri.PodSandboxState_SANDBOX_READY && theirs.Id != "" && len(theirs.Id) <= maxName &&
			isName(m.GetName()) && isName(m.GetNamespace()) && isID(m.GetUid())
		if ok != wanted {
			t.Fatalf("%v, %+v, but it is %v", ok, s, &theirs)
		}
		if ok && (s.id != theirs.Id || s.Name != m.GetName() || s.Namespace != m.GetNamespace() || s.UID != m.GetUid()) {
			t.Fatalf("%+v, but it is %v", s, &theirs)
		}
		if label, has := theirs.Labels["app"]; ok && has && len(label) <= maxLabel && s.Labels["app"] != label {
			t.Fatalf("%+v, but it is %v", s, &theirs)
		}
	})
}

func FuzzParseContainer(f *testing.F) {
	f.Add(marshal(f, containerOf("c1", "s1", "app")))
	f.Add([]byte{0x1a, 0x02, 0x0a, 0x05})
	f.Fuzz(func(t *testing.T, b []byte) {
		sandbox, name, err := parseContainer(b)
		var theirs cri.Container
		if len(sandbox) > maxName || len(name) > maxName {
			t.Fatalf("%q, %q", sandbox, name)
		}
		if proto.Unmarshal(b, &theirs) != nil {
			return
		}
		if want := theirs.GetMetadata().GetName(); err != nil || len(want) <= maxName && name != want || len(theirs.PodSandboxId) <= maxName && sandbox != theirs.PodSandboxId {
			t.Fatalf("%q, %q, %v, but it is %v", sandbox, name, err, &theirs)
		}
	})
}

// A whole reply: nothing panics, and no part is larger than allowed.
func FuzzReply(f *testing.F) {
	frame := func(b []byte) []byte { return append([]byte{0, 0, 0, 0, byte(len(b))}, b...) }
	f.Add(frame(message(1, []byte("ab"))))
	f.Add(frame(append(message(2, nil), 0x08, 1)))
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff})
	f.Add(frame(message(2, append(message(1, []byte("info")), message(2, []byte(`{"runtimeSpec":{}}`))...))))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		err := readMessage(bytes.NewReader(b), func(r *bufio.Reader) error {
			_, err := eachPart(r, func(_ protowire.Number, part []byte) error {
				total += len(part)
				if key, value, err := parseEntry(part); err == nil && string(key) == "info" {
					parseNetwork(value)
				}
				return nil
			})
			return err
		})
		if total > len(b) || err == nil && len(b) < 5 {
			t.Fatalf("%d bytes of %d, %v", total, len(b), err)
		}
	})
}
