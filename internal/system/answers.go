package system

import (
	"net/http"
	"strings"

	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/monitor"
)

// Subjects. An account or a server's id takes the place of the star.
const (
	pingSubject    = "$SYS.REQ.SERVER.PING"
	serverSubject  = "$SYS.REQ.SERVER."
	accountSubject = "$SYS.REQ.ACCOUNT."
)

// serveSystem takes the requests of operators.
func (s *Service) serveSystem() {
	a := s.opts.Broker.System()
	s.subscribe(a, pingSubject, (*request).statsz)
	for name, fn := range aboutServer { // order: each has a subject of its own
		s.subscribe(a, pingSubject+"."+name, fn)
		s.subscribe(a, serverSubject+s.id+"."+name, fn)
	}
	for name, fn := range toServer { // order: each has a subject of its own
		s.subscribe(a, serverSubject+s.id+"."+name, fn)
	}
	for name, fn := range aboutAccount { // order: each has a subject of its own
		s.subscribe(a, accountSubject+"*."+name, func(r *request) {
			fn(r, strings.Split(r.subject, ".")[3])
		})
	}
}

// serveAccount takes what the clients of any account may ask about it.
func (s *Service) serveAccount(a *broker.Account) {
	if a == s.opts.Broker.System() {
		return
	}
	own := func(fn func(*request, string)) func(*request) {
		return func(r *request) { fn(r, a.Name()) }
	}
	s.subscribe(a, pingSubject+".CONNZ", own((*request).accountConnz))
	s.subscribe(a, accountSubject+"PING.CONNZ", own((*request).accountConnz))
	s.subscribe(a, accountSubject+"PING.STATZ", own((*request).accountStatz))
}

// aboutServer is what all servers answer, or one.
var aboutServer = map[string]func(*request){
	"IDZ":      (*request).idz,
	"STATSZ":   (*request).statsz,
	"VARZ":     (*request).varz,
	"SUBSZ":    (*request).subsz,
	"CONNZ":    (*request).connz,
	"ROUTEZ":   (*request).routez,
	"GATEWAYZ": (*request).gatewayz,
	"LEAFZ":    (*request).leafz,
	"ACCOUNTZ": (*request).accountz,
	"JSZ":      (*request).jsz,
	"HEALTHZ":  (*request).healthz,
	"RAFTZ":    (*request).raftz,
	"EXPVARZ":  (*request).expvarz,
	"PROFILEZ": (*request).profilez,
}

// toServer is what one server is asked to do.
var toServer = map[string]func(*request){
	"RELOAD": (*request).reload,
	"KICK":   (*request).kick,
}

// aboutAccount is what all servers answer about one account.
var aboutAccount = map[string]func(r *request, account string){
	"SUBSZ": (*request).accountSubsz,
	"CONNZ": (*request).accountConnz,
	"JSZ":   (*request).accountJsz,
	"INFO":  (*request).accountInfo,
	"STATZ": (*request).accountStatz,
}

func (r *request) monitor() *monitor.Monitor { return r.service.opts.Monitor }

func (r *request) idz() {
	if !r.read(nil) {
		return
	}
	i := r.service.opts.Describe()
	r.send(struct {
		Name string `json:"name"`
		Host string `json:"host"`
		ID   string `json:"id"`
	}{i.Name, i.Host, i.ID})
}

// statsz without a reply subject asks for the event to be sent at once.
func (r *request) statsz() {
	if r.reply == "" {
		r.reply = r.service.statszSubject()
	}
	if r.read(nil) {
		r.compress = false // Who asks for this one does not expect it.
		r.send(r.service.stats())
	}
}

func (r *request) varz() {
	if r.read(nil) {
		r.respond(r.monitor().Varz())
	}
}

func (r *request) subsz() { r.showSubs(monitor.SubszQuery{}) }

func (r *request) accountSubsz(account string) {
	r.showSubs(monitor.SubszQuery{Account: account, Subs: true})
}

func (r *request) showSubs(fixed monitor.SubszQuery) {
	var q monitor.SubszQuery
	if !r.read(&q) {
		return
	}
	if fixed.Account != "" {
		q.Account, q.Subs = fixed.Account, fixed.Subs
	}
	if err := q.Check(); err != nil {
		r.refuse(http.StatusInternalServerError, err.Error())
		return
	}
	r.respond(r.monitor().Subsz(q))
}

func (r *request) connz() { r.showConns("") }

func (r *request) accountConnz(account string) { r.showConns(account) }

func (r *request) showConns(account string) {
	var q monitor.ConnzQuery
	if !r.read(&q) {
		return
	}
	if account != "" {
		q.Account = account
	}
	if err := q.Check(); err != nil {
		r.refuse(http.StatusInternalServerError, err.Error())
		return
	}
	r.respond(r.monitor().Connz(q))
}

func (r *request) routez() {
	if r.read(nil) {
		r.respond(r.monitor().Routez())
	}
}

func (r *request) gatewayz() {
	if r.read(nil) {
		r.respond(r.monitor().Gatewayz())
	}
}

func (r *request) leafz() {
	if r.read(nil) {
		r.respond(r.monitor().Leafz())
	}
}

func (r *request) accountz() {
	var q struct {
		Account string `json:"account"`
	}
	if !r.read(&q) {
		return
	}
	a, err := r.monitor().Accountz(q.Account)
	if err != nil {
		r.refuse(http.StatusInternalServerError, err.Error())
		return
	}
	r.respond(a)
}

func (r *request) accountInfo(account string) {
	if !r.read(nil) {
		return
	}
	a, err := r.monitor().Accountz(account)
	if err != nil {
		r.refuse(http.StatusInternalServerError, err.Error())
		return
	}
	r.respond(a.Account)
}

// jsz asked of the leader alone is answered by the leader alone.
func (r *request) jsz() {
	var q monitor.JszQuery
	if r.read(&q) && (!q.LeaderOnly || r.monitor().LeadsMeta()) {
		r.respond(r.monitor().Jsz(q))
	}
}

func (r *request) accountJsz(account string) {
	var q monitor.JszQuery
	if !r.read(&q) {
		return
	}
	q.Account, q.Accounts = account, true
	found := r.monitor().Jsz(q).Accounts
	if len(found) == 0 {
		r.refuse(http.StatusInternalServerError, `account "`+account+`" not jetstream enabled`)
		return
	}
	r.respond(found[0])
}

func (r *request) healthz() {
	var q monitor.HealthzQuery
	if !r.read(&q) {
		return
	}
	h, code := r.monitor().Healthz(q)
	h.Code = code
	r.respond(h)
}

func (r *request) raftz() {
	var q monitor.RaftzQuery
	if !r.read(&q) {
		return
	}
	groups, err := r.monitor().Raftz(q)
	if err != nil {
		r.refuse(http.StatusNotFound, err.Error())
		return
	}
	r.respond(groups)
}

// accountStatz counts one account, or with PING all that a list names, or all. Servers where none of
// them has a client stay silent.
func (r *request) accountStatz(account string) {
	var q struct {
		Accounts []string `json:"accounts"`
		Unused   bool     `json:"include_unused"`
	}
	if !r.read(&q) {
		return
	}
	if account != "PING" {
		q.Accounts = []string{account}
	}
	stats := r.monitor().Accstatz(monitor.AccstatzQuery{Accounts: q.Accounts, Unused: q.Unused})
	if len(stats.Accounts) > 0 || q.Unused {
		r.respond(stats)
	}
}

func (r *request) reload() {
	if !r.read(nil) {
		return
	}
	if err := r.service.opts.Reload(); err != nil {
		r.refuse(http.StatusInternalServerError, err.Error())
		return
	}
	r.respond(nil)
}

func (r *request) kick() {
	var q struct {
		CID uint64 `json:"cid"`
	}
	if !r.read(&q) {
		return
	}
	if !r.service.opts.Kick(q.CID) {
		r.refuse(http.StatusInternalServerError, "no such client id")
		return
	}
	r.respond(nil)
}
