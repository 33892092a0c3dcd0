// An LDAP server for tests. It knows binds with a password, and reads who has which password from a JSON file (DN to
// password) at each bind, so that a test changes a password by writing the file. Whoever is searched for is there,
// with the name that the DN begins with.
//
// Usage: ldap ADDRESS FILE
package main

import (
	"encoding/json"
	"log"
	"os"
	"strings"

	"github.com/jimlambrt/gldap"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: ldap ADDRESS FILE")
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func serve(address, file string) error {
	server, err := gldap.NewServer()
	if err != nil {
		return err
	}
	mux, err := gldap.NewMux()
	if err != nil {
		return err
	}
	if err := mux.Bind(bind(file)); err != nil {
		return err
	}
	if err := mux.Search(search); err != nil {
		return err
	}
	if err := server.Router(mux); err != nil {
		return err
	}
	return server.Run(address)
}

func bind(file string) gldap.HandlerFunc {
	return func(w *gldap.ResponseWriter, r *gldap.Request) {
		answer := r.NewBindResponse(gldap.WithResponseCode(gldap.ResultInvalidCredentials))
		if message, err := r.GetSimpleBindMessage(); err == nil && knows(file, message) {
			answer.SetResultCode(gldap.ResultSuccess)
		}
		if err := w.Write(answer); err != nil {
			log.Print(err)
		}
	}
}

func search(w *gldap.ResponseWriter, r *gldap.Request) {
	done := r.NewSearchDoneResponse(gldap.WithResponseCode(gldap.ResultOperationsError))
	if message, err := r.GetSearchMessage(); err == nil {
		first, _, _ := strings.Cut(message.BaseDN, ",")
		attribute, value, _ := strings.Cut(first, "=")
		attributes := gldap.WithAttributes(map[string][]string{attribute: {value}})
		if err := w.Write(r.NewSearchResponseEntry(message.BaseDN, attributes)); err != nil {
			log.Print(err)
		}
		done.SetResultCode(gldap.ResultSuccess)
	}
	if err := w.Write(done); err != nil {
		log.Print(err)
	}
}

func knows(file string, message *gldap.SimpleBindMessage) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	var passwords map[string]string
	if json.Unmarshal(text, &passwords) != nil {
		return false
	}
	password, known := passwords[message.UserName]
	return known && password == string(message.Password)
}
