package main

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"crypto/x509/pkix"
)

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func text(s string) []byte { return []byte(s) }

// filter is the rule that ESO documents: the blocks of a type, once the junk
// before the first block is gone.
func filter(kind, input string) ([]byte, error) {
	if at := strings.Index(input, "-----BEGIN"); at > 0 {
		input = input[at:]
	}
	var out []byte
	rest := []byte(input)
	for {
		b, next := pem.Decode(rest)
		rest = next
		if b == nil {
			break
		}
		if strings.EqualFold(b.Type, kind) {
			out = append(out, pem.EncodeToMemory(b)...)
		}
	}
	if len(out) == 0 && len(rest) > 0 {
		return nil, errors.New("junk")
	}
	return out, nil
}

func pemCalls(p *pki) error {
	cert, key := certs(p.leaves["rsa"]), pkcs8(p.keys["rsa"])
	other := certs(p.intermediate)
	headers := pem.EncodeToMemory(&pem.Block{
		Type:    "RSA PRIVATE KEY",
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,0011", "Alpha": "one: two"},
		Bytes:   []byte("not really encrypted"),
	})
	crlf := bytes.ReplaceAll(join(cert, key), text("\n"), text("\r\n"))
	indented := bytes.ReplaceAll(cert, text("\n"), text(" \t\n"))
	inputs := map[string][]byte{
		"certificate first":        join(cert, key),
		"key first":                join(key, cert),
		"several certificates":     join(key, cert, key, other),
		"junk after":               join(cert, key, text("some ---junk---")),
		"junk around":              join(text("some junk"), cert, key, text("some ---junk---")),
		"junk between on a line":   join(cert, text("some junk\n"), key),
		"junk that hides a block":  join(cert, text("some junk"), key),
		"only junk":                text("---junk---"),
		"junk with BEGIN":          text("-----BEGIN nothing at all"),
		"nothing":                  {},
		"a new line":               text("\n"),
		"headers":                  join(cert, headers),
		"line ends of Windows":     crlf,
		"blanks at the ends":       indented,
		"no end":                   cert[:len(cert)-10],
		"no end, then a block":     join(cert[:len(cert)-30], text("\n"), key),
		"another label at the end": bytes.Replace(cert, text("END CERTIFICATE"), text("END CERTIFICATES"), 1),
		"bad base64":               bytes.Replace(cert, text("MI"), text("M!"), 1),
		"bad base64, then a block": join(bytes.Replace(cert, text("MI"), text("M!"), 1), key),
		"an empty block":           text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
		"an empty line in a block": text("-----BEGIN CERTIFICATE-----\n\nAAAA\n-----END CERTIFICATE-----"),
		"all on one line":          bytes.ReplaceAll(cert, text("\n"), nil),
		"a block in a block":       join(text("-----BEGIN CERTIFICATE-----\n"), key),
		"bytes that are no text":   join([]byte{0xff, 0xfe, 0, '\n'}, cert),
	}
	for name, input := range inputs {
		for _, kind := range []string{"CERTIFICATE", "private key", "RSA PRIVATE KEY"} {
			out, err := filter(kind, string(input))
			add("filterPEM "+kind+": "+name, "filterPEM", text(kind), input).gives(out, err)
		}
	}

	randomPEM()

	for name, input := range map[string][]byte{
		"all kinds":        certs(p.sans),
		"one":              certs(p.leaves["p256"]),
		"none":             certs(p.root),
		"junk before":      join(text("some junk\n"), certs(p.sans)),
		"first of several": join(certs(p.leaves["rsa"]), certs(p.sans)),
	} {
		b, _ := pem.Decode(input[bytes.Index(input, text("-----BEGIN")):])
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return err
		}
		list := append([]string{}, c.DNSNames...)
		for _, ip := range c.IPAddresses {
			list = append(list, ip.String())
		}
		list = append(list, c.EmailAddresses...)
		for _, uri := range c.URIs {
			list = append(list, uri.String())
		}
		add("certSANs: "+name, "certSANs", input).List = list
	}
	for name, input := range map[string][]byte{"no PEM": text("not-a-pem"), "empty": {}, "a key": key} {
		add("certSANs: "+name, "certSANs", input).Error = true
	}
	strange, err := strangeSANs(p)
	if err != nil {
		return err
	}
	add("certSANs: kinds that are not listed", "certSANs", strange).List = []string{"after.example.com"}
	return nil
}

// strangeSANs has an otherName, a directory name and a registered ID before a DNS name.
func strangeSANs(p *pki) ([]byte, error) {
	name, err := asn1.Marshal(pkix.Name{CommonName: "dir"}.ToRDNSequence())
	if err != nil {
		return nil, err
	}
	values := []asn1.RawValue{
		{Class: 2, Tag: 0, IsCompound: true, Bytes: []byte{6, 3, 42, 3, 4, 0xa0, 4, 12, 2, 'h', 'i'}},
		{Class: 2, Tag: 4, IsCompound: true, Bytes: name},
		{Class: 2, Tag: 8, Bytes: []byte{42, 3, 4}},
		{Class: 2, Tag: 2, Bytes: []byte("after.example.com")},
	}
	der, err := asn1.Marshal(values)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:         pkix.Name{CommonName: "strange"},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}},
	}
	c, err := sign(template, nil, p.keys["p256"], p.keys["p256"])
	if err != nil {
		return nil, err
	}
	return certs(c), nil
}

func chainCalls(p *pki) error {
	leaf, middle, root, other := p.leaves["rsa"], p.intermediate, p.root, p.other
	none := []byte{}
	rows := []struct {
		name                    string
		input                   []byte
		leaf, intermediate, top []byte
	}{
		{"leaf only", certs(leaf), certs(leaf), none, none},
		{"no root", certs(leaf, middle), certs(leaf), certs(middle), none},
		{"root only", certs(root), none, none, certs(root)},
		{"full", certs(leaf, middle, root), certs(leaf), certs(middle), certs(root)},
		{"full, reversed", certs(root, middle, leaf), certs(leaf), certs(middle), certs(root)},
		{"full, mixed", certs(middle, leaf, root), certs(leaf), certs(middle), certs(root)},
		{"no leaf", certs(root, middle), certs(middle), none, certs(root)},
		{"junk between", join(certs(leaf), text("junk\n"), certs(middle)), certs(leaf), certs(middle), none},
		{"empty", none, nil, nil, nil},
		{"with a key", join(certs(leaf), pkcs8(p.keys["rsa"])), nil, nil, nil},
		{"two leaves", certs(leaf, p.leaves["p256"], middle), nil, nil, nil},
		{"disjunct", certs(leaf, middle, root, other), nil, nil, nil},
		{"not a certificate", block("CERTIFICATE", []byte("nonsense")), nil, nil, nil},
	}
	for _, row := range rows {
		for part, want := range map[string][]byte{"leaf": row.leaf, "intermediate": row.intermediate, "root": row.top} {
			c := add("filterCertChain "+part+": "+row.name, "filterCertChain", text(part), row.input)
			if want == nil {
				c.Error = true
			} else {
				c.gives(want, nil)
			}
		}
	}
	add("filterCertChain of an unknown part", "filterCertChain", text("middle"), certs(leaf))
	return nil
}

// randomPEM puts pieces of blocks together in ways that nobody would write.
func randomPEM() {
	pieces := []string{
		"-----BEGIN A-----\n", "-----BEGIN A-----", "-----END A-----\n", "-----END A-----", "\n-----END A-----\n",
		"-----BEGIN B-----\n", "-----END B-----\n", "-----BEGIN ", "-----END ", "-----", "\n", "\n\n", "\r\n", " ", "\t",
		"AAAA", "AAAA\n", "AA==\n", "AAB=\n", "AA=", "A", "=", "!", "Key: value\n", "Proc-Type: x\n", ":", "junk\n", "A",
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		var input strings.Builder
		// Half of them have at least a frame.
		framed := i%2 == 0
		if framed {
			input.WriteString(pieces[random.IntN(2)])
		}
		for range random.IntN(7) {
			input.WriteString(pieces[random.IntN(len(pieces))])
		}
		if framed {
			input.WriteString(pieces[2+random.IntN(3)])
		}
		out, err := filter("a", input.String())
		add(fmt.Sprintf("filterPEM of random text %d", i), "filterPEM", text("a"), text(input.String())).gives(out, err)
	}
}
