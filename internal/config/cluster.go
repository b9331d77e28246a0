package config

// cluster reads how servers find each other.
func (l *loader) cluster(v value) {
	if !l.isBlock(v, "cluster") {
		return
	}
	c := &l.cfg.Cluster
	const isolate = "all traffic between servers is replication and carries every account"
	const tuning = "it works differently here and needs no such setting"
	l.block(v, fields{
		"name":                        l.name(&c.Name, "cluster name cannot contain spaces"),
		"listen":                      l.listen(&c.Host, &c.Port),
		"port":                        l.port(&c.Port),
		"host net":                    l.str(&c.Host),
		"authorization":               l.clusterAuth,
		"routes":                      l.routes,
		"tls":                         l.tlsInto(&c.TLS),
		"cluster_advertise advertise": l.str(&c.Advertise),
		"no_advertise":                l.boolean(&c.NoAdvertise),
		"connect_retries":             l.ignore(tuning),
		"connect_backoff":             l.ignore(tuning),
		"pool_size":                   l.ignore(tuning),
		"ping_interval":               l.ignore(tuning),
		"ping_max":                    l.ignore(tuning),
		"write_deadline":              l.ignore(tuning),
		"write_timeout":               l.ignore(tuning),
		"compression":                 l.compression,
		"accounts":                    l.ignore(isolate),
		"permissions":                 l.refuse(isolate + ", so the filter would not hold"),
	}, unknownField)
}

// clusterAuth reads the one user that other servers name themselves by.
func (l *loader) clusterAuth(v value) {
	a := l.readAuthorization(v)
	c := &l.cfg.Cluster
	switch {
	case a.users != nil:
		l.fail(v, "Cluster authorization does not allow multiple users")
	case a.token != "":
		l.fail(v, "Cluster authorization does not support tokens")
	default:
		c.User, c.Password, c.AuthTimeout = a.user, a.password, a.timeout
	}
}

// routes reads the URLs of the other servers; the own one may be among them.
func (l *loader) routes(v value) {
	var urls []string
	l.strs(&urls)(v)
	seen := make(map[string]bool)
	for _, s := range urls {
		if seen[s] {
			l.misuse(v, "Duplicate route entry detected: %s", s)
			continue
		}
		seen[s] = true
		u, err := parseRoute(s)
		if err != nil {
			l.fail(v, "%v", err)
			continue
		}
		l.cfg.Cluster.Routes = append(l.cfg.Cluster.Routes, u)
	}
}

// compression accepts any mode; only the modes that do not compress are what happens.
func (l *loader) compression(v value) {
	switch v.raw {
	case "off", "disabled", "accept", "not supported":
		return
	}
	l.ignore("traffic between servers is not compressed")(v)
}
