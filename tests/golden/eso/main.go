// Command keyferry-golden-eso makes the keys, certificates and stores that test
// the functions of keys and certificates, and says what Go makes of them.
// It needs the program openssl. The keys are for tests only.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// call is one call of a template function.
type call struct {
	Name     string `json:"name"`
	Function string `json:"function"`
	// Args are indexes of texts.
	Args []int `json:"args"`
	// Output is the index of the text that the function returns.
	Output int `json:"output"`
	// List is the list that it returns.
	List []string `json:"list"`
	// Error says that it has to fail.
	Error bool `json:"error,omitempty"`
}

// fixtures is the content of the file.
type fixtures struct {
	// Texts are the arguments and results, which JSON holds as base64. The first is empty.
	Texts [][]byte `json:"texts"`
	Calls []call   `json:"calls"`
	// Keys are private keys as PEM in all their formats.
	Keys map[string]string `json:"keys"`
	// Chain is a leaf with the RSA key, an intermediate and a root.
	Chain []string `json:"chain"`
	// Made are certificates that sprig made with these keys.
	Made []made `json:"made"`
}

// made is a certificate of sprig's.
type made struct {
	Function string `json:"function"`
	Key      string `json:"key"`
	CA       string `json:"ca,omitempty"`
	CAKey    string `json:"caKey,omitempty"`
	Cert     string `json:"cert"`
}

var (
	all     = fixtures{Texts: [][]byte{{}}}
	indexes = map[string]int{"": 0}
)

// intern gives the index of a text.
func intern(text []byte) int {
	index, ok := indexes[string(text)]
	if !ok {
		index = len(all.Texts)
		indexes[string(text)] = index
		all.Texts = append(all.Texts, text)
	}
	return index
}

func add(name, function string, args ...[]byte) *call {
	c := call{Name: name, Function: function, Args: []int{}}
	for _, arg := range args {
		c.Args = append(c.Args, intern(arg))
	}
	all.Calls = append(all.Calls, c)
	return &all.Calls[len(all.Calls)-1]
}

// gives records the text that Go gives, or that it fails.
func (c *call) gives(output []byte, err error) {
	if c.Error = err != nil; !c.Error {
		c.Output = intern(output)
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	p, err := newPKI()
	if err != nil {
		return err
	}
	for _, make := range []func(*pki) error{pemCalls, chainCalls, storeCalls, opensslCalls, jwkCalls, rsaCalls, sprigCerts} {
		if err := make(p); err != nil {
			return err
		}
	}
	out, err := lines()
	if err != nil {
		return err
	}
	return os.WriteFile("fixtures.json", out, 0o644)
}

// lines is the content of the file: a line for each text, call and certificate.
func lines() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	var err error
	list := func(name string, length int, at func(int) any) {
		fmt.Fprintf(&out, "%q: [\n", name)
		for i := range length {
			if err == nil {
				err = encoder.Encode(at(i))
			}
			if i < length-1 {
				out.Truncate(out.Len() - 1)
				out.WriteString(",\n")
			}
		}
		out.WriteString("],\n")
	}
	out.WriteString("{\n")
	list("texts", len(all.Texts), func(i int) any { return all.Texts[i] })
	list("calls", len(all.Calls), func(i int) any { return all.Calls[i] })
	list("made", len(all.Made), func(i int) any { return all.Made[i] })
	list("chain", len(all.Chain), func(i int) any { return all.Chain[i] })
	out.WriteString("\"keys\": ")
	if err == nil {
		err = encoder.Encode(all.Keys)
	}
	out.WriteString("}\n")
	return out.Bytes(), err
}
