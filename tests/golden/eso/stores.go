package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"software.sslmate.com/src/go-pkcs12"
)

// reads records that both functions of a store give this key and these certificates.
func reads(name string, store []byte, password string, key any, want []byte) {
	pass := []byte(password)
	add("pkcs12keyPass: "+name, "pkcs12keyPass", pass, store).gives(pkcs8(key), nil)
	add("pkcs12certPass: "+name, "pkcs12certPass", pass, store).gives(want, nil)
	if password == "" {
		add("pkcs12key: "+name, "pkcs12key", store).gives(pkcs8(key), nil)
		add("pkcs12cert: "+name, "pkcs12cert", store).gives(want, nil)
	}
}

func refuses(name string, store []byte, password string) {
	pass := []byte(password)
	add("pkcs12keyPass: "+name, "pkcs12keyPass", pass, store).Error = true
	add("pkcs12certPass: "+name, "pkcs12certPass", pass, store).Error = true
}

func storeCalls(p *pki) error {
	chain := []*x509.Certificate{p.intermediate, p.root}
	ordered := func(kind string) []byte { return certs(p.leaves[kind], p.intermediate, p.root) }
	for _, kind := range kinds {
		store, err := pkcs12.Modern2023.Encode(p.keys[kind], p.leaves[kind], chain, "secret")
		if err != nil {
			return err
		}
		reads("modern, "+kind, store, "secret", p.keys[kind], ordered(kind))
	}
	encoders := map[string]*pkcs12.Encoder{
		"legacy DES": pkcs12.LegacyDES, "legacy RC2": pkcs12.LegacyRC2, "modern 2023": pkcs12.Modern2023,
	}
	for name, encoder := range encoders {
		for _, password := range []string{"", "secret", "pässwörd €"} {
			store, err := encoder.Encode(p.keys["rsa"], p.leaves["rsa"], chain, password)
			if err != nil {
				return err
			}
			reads(fmt.Sprintf("%s, password %q", name, password), store, password, p.keys["rsa"], ordered("rsa"))
			refuses(fmt.Sprintf("%s, wrong password for %q", name, password), store, "wrong")
			if password != "" {
				refuses(fmt.Sprintf("%s, no password for %q", name, password), store, "")
			}
		}
	}
	store, err := pkcs12.Passwordless.Encode(p.keys["p256"], p.leaves["p256"], chain, "")
	if err != nil {
		return err
	}
	reads("without a password", store, "", p.keys["p256"], ordered("p256"))
	refuses("without a MAC, but a password is given", store, "secret")

	store, err = pkcs12.Modern2026.Encode(p.keys["p256"], p.leaves["p256"], chain, "secret")
	if err != nil {
		return err
	}
	reads("modern 2026", store, "secret", p.keys["p256"], ordered("p256"))
	refuses("modern 2026, wrong password", store, "wrong")

	// Go's encoder takes certificates in any order.
	store, err = pkcs12.Modern2023.Encode(p.keys["p256"], p.leaves["p256"], []*x509.Certificate{p.root, p.intermediate}, "secret")
	if err != nil {
		return err
	}
	reads("chain out of order", store, "secret", p.keys["p256"], ordered("p256"))
	refuses("damaged", store[:len(store)-1], "secret")
	refuses("with something after it", append(append([]byte{}, store...), 0), "secret")
	refuses("a byte changed", change(store), "secret")
	refuses("nothing", []byte{}, "")
	refuses("no store", []byte("this is text"), "")

	store, err = pkcs12.Modern2023.Encode(p.keys["p256"], p.leaves["p256"], []*x509.Certificate{p.intermediate, p.other}, "secret")
	if err != nil {
		return err
	}
	reads("disjunct certificates", store, "secret", p.keys["p256"], certs(p.leaves["p256"], p.intermediate, p.other))
	if store, err = pkcs12.Modern2023.EncodeTrustStore(chain, "secret"); err != nil {
		return err
	}
	refuses("a trust store", store, "secret")
	return nil
}

func change(store []byte) []byte {
	changed := append([]byte{}, store...)
	changed[len(changed)/2] ^= 1
	return changed
}

// opensslCalls has openssl make the stores.
func opensslCalls(p *pki) error {
	folder, err := os.MkdirTemp("", "keyferry-golden")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	files := map[string][]byte{
		"rest.pem": certs(p.intermediate, p.root),
	}
	for _, kind := range kinds {
		files[kind+".key"], files[kind+".crt"] = pkcs8(p.keys[kind]), certs(p.leaves[kind])
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			return err
		}
	}
	export := func(kind, password string, options ...string) ([]byte, error) {
		args := append([]string{
			"pkcs12", "-export", "-inkey", kind + ".key", "-in", kind + ".crt", "-certfile", "rest.pem",
			"-name", "näme", "-passout", "pass:" + password,
		}, options...)
		command := exec.Command("openssl", args...)
		command.Dir, command.Stderr = folder, os.Stderr
		return command.Output()
	}
	rows := map[string][]string{
		"default":             {},
		"3DES":                {"-descert", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1"},
		"legacy":              {"-legacy"},
		"RC2 with 128 bits":   {"-legacy", "-certpbe", "PBE-SHA1-RC2-128", "-keypbe", "PBE-SHA1-RC2-128"},
		"AES-128":             {"-certpbe", "AES-128-CBC", "-keypbe", "AES-128-CBC"},
		"AES-192 and SHA-512": {"-certpbe", "AES-192-CBC", "-keypbe", "AES-192-CBC", "-macalg", "sha512"},
		"plain key":           {"-keypbe", "NONE"},
		"plain certificates":  {"-certpbe", "NONE"},
		"SHA-384 for the MAC": {"-macalg", "sha384"},
		"many iterations":     {"-iter", "20000"},
		"one iteration":       {"-noiter", "-nomaciter"},
	}
	for name, options := range rows {
		for _, password := range []string{"secret", ""} {
			store, err := export("rsa", password, options...)
			if err != nil {
				return fmt.Errorf("openssl %v: %w", options, err)
			}
			want := certs(p.leaves["rsa"], p.intermediate, p.root)
			reads(fmt.Sprintf("openssl %s, password %q", name, password), store, password, p.keys["rsa"], want)
			refuses(fmt.Sprintf("openssl %s, wrong password for %q", name, password), store, "wrong")
		}
	}
	for _, kind := range kinds {
		store, err := export(kind, "secret")
		if err != nil {
			return err
		}
		reads("openssl "+kind, store, "secret", p.keys[kind], certs(p.leaves[kind], p.intermediate, p.root))
	}
	store, err := export("rsa", "secret", "-nokeys")
	if err != nil {
		return err
	}
	refuses("openssl without a key", store, "secret")
	return nil
}
