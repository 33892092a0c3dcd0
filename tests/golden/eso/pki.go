package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"time"
)

// pki holds a key of each kind and a certificate for each, below one intermediate and one root.
type pki struct {
	keys               map[string]crypto.Signer
	leaves             map[string]*x509.Certificate
	root, intermediate *x509.Certificate
	sans               *x509.Certificate
	other              *x509.Certificate
}

var kinds = []string{"rsa", "p256", "p384", "p521", "ed25519"}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func certs(list ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range list {
		out = append(out, block("CERTIFICATE", c.Raw)...)
	}
	return out
}

func pkcs8(key any) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return block("PRIVATE KEY", der)
}

var serial = int64(1000)

func sign(template, parent *x509.Certificate, key crypto.Signer, parentKey crypto.Signer) (*x509.Certificate, error) {
	serial++
	template.SerialNumber = big.NewInt(serial)
	template.NotBefore = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	template.NotAfter = time.Date(2054, 1, 1, 0, 0, 0, 0, time.UTC)
	template.BasicConstraintsValid = true
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func newPKI() (*pki, error) {
	p := &pki{keys: map[string]crypto.Signer{}, leaves: map[string]*x509.Certificate{}}
	p.keys["rsa"], _ = rsa.GenerateKey(rand.Reader, 2048)
	p.keys["p256"], _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.keys["p384"], _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p.keys["p521"], _ = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, p.keys["ed25519"], _ = ed25519.GenerateKey(rand.Reader)
	rootKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	middleKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)

	var err error
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{
			Subject:  pkix.Name{CommonName: name, Organization: []string{"Tests, Inc."}, Country: []string{"CH"}},
			IsCA:     true,
			KeyUsage: x509.KeyUsageCertSign,
		}
	}
	if p.root, err = sign(ca("Root"), nil, rootKey, rootKey); err != nil {
		return nil, err
	}
	if p.intermediate, err = sign(ca("Intermediate"), p.root, middleKey, rootKey); err != nil {
		return nil, err
	}
	if p.other, err = sign(ca("Other Rööt"), nil, middleKey, middleKey); err != nil {
		return nil, err
	}
	for _, kind := range kinds {
		template := &x509.Certificate{Subject: pkix.Name{CommonName: kind}, DNSNames: []string{kind + ".example.com"}}
		template.SubjectKeyId = []byte(kind)
		if p.leaves[kind], err = sign(template, p.intermediate, p.keys[kind], middleKey); err != nil {
			return nil, err
		}
	}
	uri, _ := url.Parse("https://example.com/path?x=1")
	spiffe, _ := url.Parse("spiffe://example.com/ns/default")
	template := &x509.Certificate{
		Subject:        pkix.Name{CommonName: "sans"},
		DNSNames:       []string{"example.com", "*.example.com"},
		IPAddresses:    []net.IP{net.ParseIP("192.168.1.10"), net.ParseIP("10.0.0.1"), net.ParseIP("2001:db8::1"), net.ParseIP("::1")},
		EmailAddresses: []string{"admin@example.com"},
		URIs:           []*url.URL{uri, spiffe},
	}
	if p.sans, err = sign(template, nil, p.keys["p256"], p.keys["p256"]); err != nil {
		return nil, err
	}

	all.Keys = map[string]string{}
	for _, kind := range kinds {
		all.Keys[kind+"/pkcs8"] = string(pkcs8(p.keys[kind]))
		switch key := p.keys[kind].(type) {
		case *rsa.PrivateKey:
			all.Keys[kind+"/pkcs1"] = string(block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)))
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(key)
			if err != nil {
				return nil, err
			}
			all.Keys[kind+"/sec1"] = string(block("EC PRIVATE KEY", der))
		}
	}
	for _, c := range []*x509.Certificate{p.leaves["rsa"], p.intermediate, p.root} {
		all.Chain = append(all.Chain, string(certs(c)))
	}
	return p, nil
}
