package workload

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// The few messages of the CRI that are read (runtime.v1, api.proto of
// k8s.io/cri-api), part by part: at no time is more of a reply in memory than one
// pod or container, however long it is.

const (
	maxPart   = 512 << 10 // bytes of a pod or container: Kubernetes allows 256 KiB of annotations
	maxParts  = 1 << 16
	maxPods   = 4096 // of one runtime
	maxLabel  = 253  // bytes of a label's value
	maxSpaces = 16   // namespaces of a container; the kernel has 8 kinds
)

var errMessage = errors.New("a reply that is no message of the CRI")

// message is a field of a message that holds another message, or a string.
func message(field protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), b)
}

// readySandboxes is a ListPodSandboxRequest for those in state SANDBOX_READY, 0.
func readySandboxes() []byte { return message(1, message(2, nil)) }

// runningContainers is a ListContainersRequest for those in state
// CONTAINER_RUNNING, 1.
func runningContainers() []byte { return message(1, message(2, []byte{0x08, 1})) }

// statusOf is a PodSandboxStatusRequest, a verbose one.
func statusOf(id string) []byte { return append(message(1, []byte(id)), 0x10, 1) }

// eachPart reads a message, and calls f for each of its fields that is a message
// or a string. The bytes are valid until f returns. Parts larger than maxPart are
// left out and counted.
func eachPart(r *bufio.Reader, f func(field protowire.Number, b []byte) error) (left int, err error) {
	var part []byte
	for range maxParts {
		tag, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return left, nil
		}
		field, kind := protowire.DecodeTag(tag)
		if err != nil {
			return left, cut(err)
		}
		if field < protowire.MinValidNumber {
			return left, errMessage
		}
		switch kind {
		case protowire.VarintType:
			_, err = binary.ReadUvarint(r)
		case protowire.Fixed32Type:
			_, err = r.Discard(4)
		case protowire.Fixed64Type:
			_, err = r.Discard(8)
		case protowire.BytesType:
			var size uint64
			size, err = binary.ReadUvarint(r)
			switch {
			case err != nil:
			case size > maxReply:
				err = errMessage
			case size > maxPart:
				left++
				_, err = r.Discard(int(size))
			default:
				if uint64(cap(part)) < size {
					part = make([]byte, size)
				}
				if _, err = io.ReadFull(r, part[:size]); err == nil {
					if err := f(field, part[:size]); err != nil {
						return left, err
					}
				}
			}
		default:
			return left, errMessage
		}
		if err != nil {
			return left, cut(err)
		}
	}
	return left, fmt.Errorf("a reply of more than %d parts", maxParts)
}

// cut tells a message that ends too soon from one that can't be read.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errMessage
	}
	return err
}

// eachField calls text for the fields of a message in memory that are a message
// or a string, and number, if it isn't nil, for those that are a number.
func eachField(b []byte, text func(field protowire.Number, b []byte), number func(field protowire.Number, n uint64)) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMessage
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return errMessage
		}
		switch kind {
		case protowire.BytesType:
			part, _ := protowire.ConsumeBytes(b)
			text(field, part)
		case protowire.VarintType:
			if number != nil {
				value, _ := protowire.ConsumeVarint(b)
				number(field, value)
			}
		}
		b = b[n:]
	}
	return nil
}

// A sandbox is what a runtime makes of a pod.
type sandbox struct {
	id string
	Pod
}

// parseSandbox reads a PodSandbox that is ready. It is false for others, and for
// names that Kubernetes wouldn't give.
func parseSandbox(b []byte, labels []string) (s sandbox, ok bool, err error) {
	ready := true
	var inner error
	err = eachField(b, func(field protowire.Number, b []byte) {
		switch field {
		case 1: // id
			s.id = word(b)
		case 2: // metadata
			inner = errors.Join(inner, eachField(b, func(field protowire.Number, b []byte) {
				switch field {
				case 1:
					s.Name = word(b)
				case 2:
					s.UID = word(b)
				case 3:
					s.Namespace = word(b)
				}
			}, nil))
		case 5: // labels
			key, value, err := parseEntry(b)
			inner = errors.Join(inner, err)
			for _, label := range labels {
				if label == string(key) && len(value) <= maxLabel {
					if s.Labels == nil {
						s.Labels = map[string]string{}
					}
					s.Labels[label] = string(value)
				}
			}
		}
	}, func(field protowire.Number, n uint64) {
		if field == 3 { // state: SANDBOX_READY is 0
			ready = n == 0
		}
	})
	if err != nil || inner != nil {
		return sandbox{}, false, errMessage
	}
	return s, ready && s.id != "" && isName(s.Name) && isName(s.Namespace) && isID(s.UID), nil
}

// word is a copy of a name, "" of what is too long to be one.
func word(b []byte) string {
	if len(b) > maxName {
		return ""
	}
	return string(b)
}

// parseEntry reads an entry of a map.
func parseEntry(b []byte) (key, value []byte, err error) {
	err = eachField(b, func(field protowire.Number, b []byte) {
		switch field {
		case 1:
			key = b
		case 2:
			value = b
		}
	}, nil)
	return key, value, err
}

// parseContainer reads a Container: whose it is, and its name.
func parseContainer(b []byte) (sandbox, name string, err error) {
	var inner error
	err = eachField(b, func(field protowire.Number, b []byte) {
		switch field {
		case 2: // pod_sandbox_id
			sandbox = word(b)
		case 3: // metadata
			inner = eachField(b, func(field protowire.Number, b []byte) {
				if field == 1 {
					name = word(b)
				}
			}, nil)
		}
	}, nil)
	if err != nil || inner != nil {
		return "", "", errMessage
	}
	return sandbox, name, nil
}

// parseNetwork finds the path of the network namespace in what containerd and
// CRI-O tell of a sandbox beyond the CRI. "" is none, or not told.
func parseNetwork(info []byte) string {
	var told struct {
		RuntimeSpec struct {
			Linux struct {
				// Not a slice: more than these are dropped, and cost nothing.
				Namespaces [maxSpaces]struct{ Type, Path string }
			}
		}
	}
	if json.Unmarshal(info, &told) != nil {
		return ""
	}
	const maxPath = 4096 // of the kernel
	for _, n := range told.RuntimeSpec.Linux.Namespaces {
		if n.Type == "network" && len(n.Path) <= maxPath && len(n.Path) > 0 && n.Path[0] == '/' {
			return n.Path
		}
	}
	return ""
}
