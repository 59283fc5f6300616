package dialect

import "strings"

// Name is the name of a profile, or Auto or Careful.
type Name string

// The names that are no profiles.
const (
	Auto    Name = "auto"    // by host, greeting and capabilities
	Careful Name = "careful" // the zero Dialect
)

// Values returns all names.
func (Name) Values() []Name {
	names := []Name{Auto, Careful}
	for _, p := range profiles {
		names = append(names, Name(p.Name))
	}
	return names
}

// Switch turns a way of addressing a server on or off, or leaves that to the
// profile and to what is learned.
type Switch string

// The values of a Switch.
const (
	SwitchAuto Switch = "auto"
	SwitchOn   Switch = "on"
	SwitchOff  Switch = "off"
)

// Values returns all values.
func (Switch) Values() []Switch { return []Switch{SwitchAuto, SwitchOn, SwitchOff} }

// SendID says when ID is sent.
type SendID string

// The values of SendID.
const (
	IDAuto   SendID = "auto"
	IDBefore SendID = "before-login"
	IDAfter  SendID = "after-login" // and not before
	IDBoth   SendID = "both"
	IDNever  SendID = "never"
)

// Values returns all values.
func (SendID) Values() []SendID { return []SendID{IDAuto, IDBefore, IDAfter, IDBoth, IDNever} }

// Authentication says how a name and a password are sent.
type Authentication string

// The values of Authentication.
const (
	AuthenticateAuto    Authentication = "auto"
	AuthenticateInitial Authentication = "initial-response" // AUTHENTICATE with it, where that is offered
	AuthenticateAsked   Authentication = "challenge"        // AUTHENTICATE without
	AuthenticateLogin   Authentication = "login"            // LOGIN
)

// Values returns all values.
func (Authentication) Values() []Authentication {
	return []Authentication{AuthenticateAuto, AuthenticateInitial, AuthenticateAsked, AuthenticateLogin}
}

// Searching says how messages are looked for.
type Searching string

// The values of Searching.
const (
	SearchAuto     Searching = "auto"
	SearchByReturn Searching = "return" // SEARCH RETURN, where that is offered, among sets of UIDs too
	SearchByPlain  Searching = "plain"  // SEARCH without RETURN, among sets of UIDs too
	SearchByFetch  Searching = "fetch"  // FETCH of the flags
)

// Values returns all values.
func (Searching) Values() []Searching {
	return []Searching{SearchAuto, SearchByReturn, SearchByPlain, SearchByFetch}
}

// Choice is how the dialect of an upstream is chosen: by a profile, and by single
// ways that an operator has set.
type Choice struct {
	Host            string // of its address
	Profile         Name
	Pipelining      Switch
	SendID          SendID
	Authenticate    Authentication
	Search          Searching
	PartialFetch    Switch
	UserConnections int // 0: as in the profile
}

// Defaults returns the Choice that leaves all to what the server announces.
func Defaults() Choice {
	return Choice{Profile: Auto, Pipelining: SwitchAuto, SendID: IDAuto, Authenticate: AuthenticateAuto, Search: SearchAuto, PartialFetch: SwitchAuto}
}

// Dialect returns the dialect of the server that greets like this and announces
// these capabilities, in upper case, before a login. That of a server it does not
// know is the zero Dialect, but for what the operator has set.
func (c Choice) Dialect(greeting string, capabilities []string) Dialect {
	d := c.profile(greeting, capabilities)
	set := func(takes, avoids Form) {
		d.Takes, d.Avoids = d.Takes&^avoids|takes, d.Avoids&^takes|avoids
	}
	switches := func(s Switch, f Form) {
		switch s {
		case SwitchOn:
			set(f, 0)
		case SwitchOff:
			set(0, f)
		}
	}
	switches(c.Pipelining, IDFlight|LoginFlight|SelectFlight)
	switches(c.PartialFetch, PartialFetch)
	switch c.SendID {
	case IDBefore:
		set(ID, IDAfterLogin)
	case IDAfter:
		set(IDAfterLogin, ID)
	case IDBoth:
		set(ID|IDAfterLogin, 0)
	case IDNever:
		set(0, ID|IDAfterLogin)
	}
	switch c.Authenticate {
	case AuthenticateInitial:
		set(Authenticate|InitialResponse, 0)
	case AuthenticateAsked:
		set(Authenticate, InitialResponse)
	case AuthenticateLogin:
		set(0, Authenticate|InitialResponse)
	}
	switch c.Search {
	case SearchByReturn:
		set(SearchReturn|SearchPlain, 0)
		d.SearchesSets = true
	case SearchByPlain:
		set(SearchPlain, SearchReturn)
		d.SearchesSets = true
	case SearchByFetch:
		set(0, SearchPlain|SearchReturn)
	}
	if c.UserConnections > 0 {
		d.UserConnections = c.UserConnections
	}
	return d
}

// profile returns the dialect without what the operator has set besides a profile.
func (c Choice) profile(greeting string, capabilities []string) Dialect {
	for i := range profiles {
		p := &profiles[i]
		switch name := strings.ToLower(string(c.Profile)); name {
		case "", string(Auto):
			if p.fits(c.Host, greeting, capabilities) {
				return p.Dialect()
			}
		case p.Name:
			return p.Dialect()
		}
	}
	return Dialect{}
}
