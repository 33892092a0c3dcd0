package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"hash"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

func jwkPublic(input []byte) ([]byte, error) {
	raw, err := rawKey(input)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(raw)
	return block("PUBLIC KEY", der), err
}

func jwkPrivate(input []byte) ([]byte, error) {
	raw, err := rawKey(input)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(raw)
	return block("PRIVATE KEY", der), err
}

func rawKey(input []byte) (any, error) {
	key, err := jwk.ParseKey(input)
	if err != nil {
		return nil, err
	}
	var raw any
	return raw, key.Raw(&raw)
}

// both records what Go makes of a JWK in both functions.
func both(name string, input []byte) {
	out, err := jwkPublic(input)
	add("jwkPublicKeyPem: "+name, "jwkPublicKeyPem", input).gives(out, err)
	out, err = jwkPrivate(input)
	add("jwkPrivateKeyPem: "+name, "jwkPrivateKeyPem", input).gives(out, err)
}

func asJWK(key any) []byte {
	k, err := jwk.FromRaw(key)
	if err != nil {
		panic(err)
	}
	out, err := json.Marshal(k)
	if err != nil {
		panic(err)
	}
	return out
}

func edit(input []byte, change func(map[string]any)) []byte {
	members := map[string]any{}
	if err := json.Unmarshal(input, &members); err != nil {
		panic(err)
	}
	change(members)
	out, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	return out
}

func jwkCalls(p *pki) error {
	for _, kind := range kinds {
		private, public := asJWK(p.keys[kind]), asJWK(p.keys[kind].Public())
		both("private "+kind, private)
		both("public "+kind, public)
		both("public with more members "+kind, edit(public, func(m map[string]any) {
			m["kid"], m["use"], m["key_ops"], m["alg"], m["other"] = "ex", "sig", []string{"verify"}, "none", map[string]int{"a": 1}
		}))
		both("without kty "+kind, edit(public, func(m map[string]any) { delete(m, "kty") }))
	}
	rsaKey, ecKey := asJWK(p.keys["rsa"]), asJWK(p.keys["p256"])
	both("RSA without the optional numbers", edit(rsaKey, func(m map[string]any) {
		delete(m, "dp")
		delete(m, "dq")
		delete(m, "qi")
	}))
	for _, names := range [][]string{{"p"}, {"q"}, {"p", "q"}, {"d"}, {"e"}, {"p", "q", "dp", "dq", "qi"}} {
		both("RSA without "+strings.Join(names, " and "), edit(rsaKey, func(m map[string]any) {
			for _, name := range names {
				delete(m, name)
			}
		}))
	}
	for _, name := range []string{"n", "e", "d", "p", "q"} {
		both("RSA with zeros before "+name, edit(rsaKey, func(m map[string]any) {
			number, err := base64.RawURLEncoding.DecodeString(m[name].(string))
			if err != nil {
				panic(err)
			}
			m[name] = base64.RawURLEncoding.EncodeToString(append(make([]byte, 9), number...))
		}))
	}
	both("RSA without n", edit(asJWK(p.keys["rsa"].Public()), func(m map[string]any) { delete(m, "n") }))
	both("EC without y", edit(asJWK(p.keys["p256"].Public()), func(m map[string]any) { delete(m, "y") }))
	both("EC on an unknown curve", edit(ecKey, func(m map[string]any) { m["crv"] = "P-999" }))
	both("EC without crv", edit(ecKey, func(m map[string]any) { delete(m, "crv") }))
	both("padded", edit(asJWK(p.keys["p256"].Public()), func(m map[string]any) { m["x"] = m["x"].(string) + "=" }))
	both("standard base64", edit(asJWK(p.keys["rsa"].Public()), func(m map[string]any) {
		m["n"] = strings.NewReplacer("-", "+", "_", "/").Replace(m["n"].(string))
	}))
	both("a number instead of text", edit(ecKey, func(m map[string]any) { m["x"] = 5 }))
	both("bad base64", edit(ecKey, func(m map[string]any) { m["x"] = "!!" }))
	both("symmetric", []byte(`{"kty":"oct","k":"AAAA"}`))
	both("unknown kty", []byte(`{"kty":"nope"}`))
	both("no JSON", []byte("{"))
	both("no object", []byte("[]"))
	both("empty", nil)
	both("OKP X25519", []byte(`{"kty":"OKP","crv":"X25519","x":"3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"}`))
	return nil
}

func rsaCalls(p *pki) error {
	key := p.keys["rsa"].(*rsa.PrivateKey)
	formats := map[string][]byte{
		"PKCS#8": []byte(all.Keys["rsa/pkcs8"]),
		"PKCS#1": []byte(all.Keys["rsa/pkcs1"]),
	}
	hashes := map[string]hash.Hash{"SHA1": sha1.New(), "SHA256": sha256.New(), "SHA512": sha512.New()}
	secret := []byte("secret \xff\x00 data")
	for format, private := range formats {
		for name, hash := range hashes {
			sealed, err := rsa.EncryptOAEP(hash, rand.Reader, &key.PublicKey, secret, nil)
			if err != nil {
				return err
			}
			call := func(title, name string, fails bool) {
				c := add("rsaDecrypt "+format+": "+title, "rsaDecrypt", text("RSA-OAEP"), text(name), sealed, private)
				c.Error = fails
				if !fails {
					c.gives(secret, nil)
				}
			}
			call(name, name, false)
			if name == "SHA256" {
				call("an unknown hash is SHA256", "MD5", false)
				call("the hash None is SHA256", "None", false)
			} else {
				call(name+" read as SHA256", "SHA256", true)
			}
		}
		add("rsaDecrypt "+format+": None", "rsaDecrypt", text("None"), text("SHA256"), secret, private).gives(secret, nil)
		add("rsaDecrypt "+format+": another scheme", "rsaDecrypt", text("PKCS1"), text("SHA256"), secret, private).Error = true
		add("rsaDecrypt "+format+": not encrypted", "rsaDecrypt", text("RSA-OAEP"), text("SHA256"), secret, private).Error = true
		add("rsaDecrypt "+format+": nothing", "rsaDecrypt", text("RSA-OAEP"), text("SHA256"), nil, private).Error = true
	}
	add("rsaDecrypt: None needs no key", "rsaDecrypt", text("None"), nil, secret, text("irrelevant")).gives(secret, nil)
	for name, private := range map[string][]byte{
		"an EC key":     []byte(all.Keys["p256/sec1"]),
		"no PEM":        text("not-a-valid-pem"),
		"a certificate": block("CERTIFICATE", []byte("invalid")),
	} {
		sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, secret, nil)
		if err != nil {
			return err
		}
		add("rsaDecrypt with "+name, "rsaDecrypt", text("RSA-OAEP"), text("SHA256"), sealed, private).Error = true
	}
	return nil
}
