package consumer

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/subject"
)

// Defaults and bounds of consumer configurations.
const (
	ackWaitDefault       = 30 * time.Second
	inactiveDefault      = 5 * time.Second
	maxWaitingDefault    = 512
	maxAckPendingDefault = 1000
	pinTimeoutDefault    = 2 * time.Minute
	heartbeatMin         = 100 * time.Millisecond
	expiresMin           = time.Millisecond
	nameLenMax           = 255
	descriptionLenMax    = 4096
	metadataBytesMax     = 128 << 10
	groupLenMax          = 16
)

// Limits are the server's and the account's bounds; zero or less: none.
type Limits struct {
	MaxAckPending   int
	MaxRequestBatch int
}

// Normalize fills in what a request left out.
func Normalize(cfg *api.ConsumerConfig, stream *api.StreamConfig) {
	if cfg.Name == "" {
		cfg.Name = cfg.Durable
	}
	cfg.Metadata = api.WithoutServerMetadata(cfg.Metadata)
	if cfg.PauseUntil != nil && cfg.PauseUntil.IsZero() {
		cfg.PauseUntil = nil // What clients send that leave no member out.
	}
	if cfg.MaxDeliver == 0 || cfg.MaxDeliver < -1 {
		cfg.MaxDeliver = -1
	}
	if len(cfg.BackOff) > 0 {
		cfg.AckWait = cfg.BackOff[0]
	}
	if cfg.AckPolicy == api.AckFlowControl {
		cfg.FlowControl = true
		if cfg.IdleHeartbeat == 0 {
			cfg.IdleHeartbeat = time.Second
		}
		if cfg.MaxAckPending == 0 {
			cfg.MaxAckPending = maxAckPendingDefault
		}
	}
	if tracked := cfg.AckPolicy == api.AckAll || cfg.AckPolicy == api.AckExplicit; tracked {
		if cfg.AckWait == 0 {
			cfg.AckWait = ackWaitDefault
		}
		if cfg.MaxAckPending == 0 {
			cfg.MaxAckPending = cmpOr(stream.ConsumerLimits.MaxAckPending, maxAckPendingDefault)
		}
	}
	if cfg.DeliverSubject == "" && cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = maxWaitingDefault
	}
	if cfg.InactiveThreshold == 0 {
		cfg.InactiveThreshold = stream.ConsumerLimits.InactiveThreshold
	}
	if cfg.InactiveThreshold == 0 && cfg.Durable == "" {
		cfg.InactiveThreshold = inactiveDefault
	}
	if cfg.PriorityPolicy == api.PriorityPinnedClient && cfg.PriorityTimeout == 0 {
		cfg.PriorityTimeout = pinTimeoutDefault
	}
}

func cmpOr(a, b int) int {
	if a > 0 {
		return a
	}
	return b
}

// CheckName refuses what can not be a consumer's name; what says which of its two names it is.
func CheckName(name, what string) *api.Error {
	if len(name) > nameLenMax {
		return api.ErrConsumerNameTooLong.With(nameLenMax)
	}
	if strings.ContainsAny(name, ".*>/\\ \t\r\n\f") {
		return api.ErrInvalidConfig.With(what + ` can not contain '.', '*', '>', '\', '/'`)
	}
	return nil
}

// Check refuses a configuration that breaks a rule. The order of the checks is part of the
// protocol: clients see the first one that fails. cfg is normalised.
func Check(cfg *api.ConsumerConfig, stream *api.StreamConfig, limits Limits) *api.Error {
	for _, check := range []func(*api.ConsumerConfig, *api.StreamConfig, Limits) *api.Error{
		checkNames, checkReplicas, checkPolicies, checkFlowAcks, checkTexts,
		checkPush, checkPull, checkLimits, checkFilters, checkStart, checkRest, checkGroups,
	} {
		if err := check(cfg, stream, limits); err != nil {
			return err
		}
	}
	return nil
}

func checkNames(cfg *api.ConsumerConfig, _ *api.StreamConfig, _ Limits) *api.Error {
	if err := CheckName(cfg.Durable, "consumer durable name"); err != nil {
		return err
	}
	return CheckName(cfg.Name, "consumer name")
}

func checkReplicas(cfg *api.ConsumerConfig, stream *api.StreamConfig, _ Limits) *api.Error {
	switch {
	case cfg.Replicas > stream.Replicas:
		return api.ErrConsumerReplicasExceedStream
	case cfg.Replicas < 0:
		return api.ErrReplicasNegative
	case stream.Retention != api.LimitsRetention && cfg.Replicas != 0 && cfg.Replicas != stream.Replicas:
		return api.ErrConsumerReplicasMustMatch
	}
	return nil
}

func checkPolicies(cfg *api.ConsumerConfig, _ *api.StreamConfig, _ Limits) *api.Error {
	switch {
	case cfg.AckPolicy > api.AckFlowControl:
		return api.ErrAckPolicyInvalid
	case cfg.ReplayPolicy > api.ReplayOriginal:
		return api.ErrReplayPolicyInvalid
	case slices.ContainsFunc(cfg.BackOff, func(d time.Duration) bool { return d < 0 }):
		return api.ErrBackoffNegative
	case cfg.AckWait < 0:
		return api.ErrAckWaitNegative
	}
	return nil
}

func checkFlowAcks(cfg *api.ConsumerConfig, _ *api.StreamConfig, _ Limits) *api.Error {
	if cfg.AckPolicy != api.AckFlowControl {
		return nil
	}
	switch {
	case cfg.DeliverSubject == "":
		return api.ErrAckFlowControlRequiresPush
	case !cfg.FlowControl:
		return api.ErrAckFlowControlRequiresFlowControl
	case cfg.IdleHeartbeat != time.Second:
		return api.ErrInvalidConfig.With("flow control ack policy heartbeat needs to be 1s")
	case cfg.MaxAckPending <= 0:
		return api.ErrAckFlowControlRequiresMaxPending
	case cfg.AckWait != 0 || len(cfg.BackOff) > 0:
		return api.ErrAckFlowControlWithAckWait
	case cfg.MaxDeliver > 0:
		return api.ErrAckFlowControlWithMaxDeliver
	}
	return nil
}

func checkTexts(cfg *api.ConsumerConfig, _ *api.StreamConfig, _ Limits) *api.Error {
	switch {
	case len(cfg.BackOff) > 0 && cfg.MaxDeliver != -1 && len(cfg.BackOff) > cfg.MaxDeliver:
		return api.ErrMaxDeliverBackoff
	case len(cfg.Description) > descriptionLenMax:
		return api.ErrConsumerDescriptionTooLong.With(descriptionLenMax)
	}
	return nil
}

func checkPush(cfg *api.ConsumerConfig, stream *api.StreamConfig, _ Limits) *api.Error {
	if cfg.DeliverSubject == "" {
		return nil
	}
	switch {
	case subject.HasWildcard(cfg.DeliverSubject):
		return api.ErrDeliverWildcards
	case !subject.ValidLiteral(cfg.DeliverSubject):
		return api.ErrInvalidDeliverSubject
	case overlap([]string{cfg.DeliverSubject}, stream.Subjects):
		return api.ErrDeliverCycle
	case cfg.MaxWaiting != 0:
		return api.ErrPushMaxWaiting
	case cfg.MaxAckPending > 0 && cfg.AckPolicy == api.AckNone:
		return api.ErrMaxPendingAckPolicy
	case cfg.IdleHeartbeat > 0 && cfg.IdleHeartbeat < heartbeatMin:
		return api.ErrHeartbeatTooSmall
	}
	return nil
}

func checkPull(cfg *api.ConsumerConfig, stream *api.StreamConfig, limits Limits) *api.Error {
	if cfg.DeliverSubject != "" {
		return nil
	}
	switch {
	case stream.Retention == api.WorkQueueRetention && cfg.AckPolicy == api.AckNone:
		return api.ErrPullRequiresAck
	case cfg.RateLimit > 0:
		return api.ErrPullWithRateLimit
	case cfg.MaxWaiting < 0:
		return api.ErrMaxWaitingNegative
	case cfg.IdleHeartbeat > 0:
		return api.ErrHeartbeatRequiresPush
	case cfg.FlowControl:
		return api.ErrFlowControlRequiresPush
	case cfg.MaxRequestBatch < 0:
		return api.ErrMaxRequestBatchNegative
	case cfg.MaxRequestExpires != 0 && cfg.MaxRequestExpires < expiresMin:
		return api.ErrMaxRequestExpiresTooSmall
	case limits.MaxRequestBatch > 0 && cfg.MaxRequestBatch > limits.MaxRequestBatch:
		return api.ErrMaxRequestBatchExceeded.With(limits.MaxRequestBatch)
	}
	return nil
}

func checkLimits(cfg *api.ConsumerConfig, stream *api.StreamConfig, limits Limits) *api.Error {
	for _, limit := range []int{limits.MaxAckPending, stream.ConsumerLimits.MaxAckPending} {
		if limit > 0 && (cfg.MaxAckPending > limit || cfg.MaxAckPending < 0) {
			return api.ErrMaxAckPendingExceeded.With(limit)
		}
	}
	if limit := stream.ConsumerLimits.InactiveThreshold; limit > 0 && cfg.InactiveThreshold > limit {
		return api.ErrInactiveThresholdExceeded.With(limit)
	}
	switch {
	case !cfg.Direct:
	case cfg.DeliverSubject == "":
		return api.ErrDirectRequiresPush
	case cfg.Durable != "":
		return api.ErrDirectRequiresEphemeral
	}
	return nil
}

func checkFilters(cfg *api.ConsumerConfig, _ *api.StreamConfig, _ Limits) *api.Error {
	if cfg.FilterSubject != "" && len(cfg.FilterSubjects) > 0 {
		return api.ErrBothFilterForms
	}
	if cfg.FilterSubject != "" && !subject.Valid(cfg.FilterSubject) {
		return api.ErrInvalidConfig.With("consumer filter subject is not a valid subject")
	}
	for i, f := range cfg.FilterSubjects {
		switch {
		case f == "":
			return api.ErrEmptyFilter
		case !subject.Valid(f):
			return api.ErrInvalidConfig.With("consumer filter subject is not a valid subject")
		case overlap(cfg.FilterSubjects[:i], []string{f}):
			return api.ErrFiltersOverlap
		}
	}
	return nil
}

func checkStart(cfg *api.ConsumerConfig, _ *api.StreamConfig, _ Limits) *api.Error {
	policy := strings.ReplaceAll(cfg.DeliverPolicy.String(), "_", " ")
	also := func(what string) *api.Error {
		return api.ErrInvalidPolicy.With("consumer delivery policy is deliver " + policy + ", but optional " + what + " is also set")
	}
	lacks := func(what string) *api.Error {
		return api.ErrInvalidPolicy.With("consumer delivery policy is deliver " + policy + ", but optional " + what + " is not set")
	}
	bySeq := cfg.DeliverPolicy == api.DeliverByStartSequence
	byTime := cfg.DeliverPolicy == api.DeliverByStartTime
	switch {
	case cfg.DeliverPolicy == api.DeliverLastPerSubject && cfg.FilterSubject == "" && len(cfg.FilterSubjects) == 0:
		return lacks("filter subject")
	case bySeq && cfg.OptStartSeq == 0:
		return lacks("start sequence")
	case byTime && cfg.OptStartTime == nil:
		return lacks("start time")
	case !bySeq && cfg.OptStartSeq > 0:
		return also("start sequence")
	case !byTime && cfg.OptStartTime != nil:
		return also("start time")
	}
	return nil
}

func checkRest(cfg *api.ConsumerConfig, _ *api.StreamConfig, _ Limits) *api.Error {
	if s := strings.TrimSuffix(cfg.SampleFrequency, "%"); s != "" {
		if n, err := strconv.Atoi(s); err != nil {
			return api.ErrInvalidSampling.With(err)
		} else if n < 0 || n > 100 {
			return api.ErrInvalidSampling.With("sampling percentage must be between 0 and 100")
		}
	}
	if cfg.FlowControl && cfg.IdleHeartbeat == 0 {
		return api.ErrFlowControlNeedsHeartbeats
	}
	if cfg.Durable != "" && cfg.Name != "" && cfg.Durable != cfg.Name {
		return api.ErrDurableAndNameDiffer
	}
	size := 0
	for k, v := range cfg.Metadata {
		size += len(k) + len(v)
	}
	if size > metadataBytesMax {
		return api.ErrConsumerMetadataTooLarge.With("128KB")
	}
	return nil
}

func checkGroups(cfg *api.ConsumerConfig, _ *api.StreamConfig, _ Limits) *api.Error {
	if cfg.PriorityPolicy == api.PriorityNone {
		switch {
		case len(cfg.PriorityGroups) > 0:
			return api.ErrPriorityGroupsWithoutPolicy
		case cfg.PriorityTimeout != 0:
			return api.ErrPinnedTTLWithoutPolicy
		}
		return nil
	}
	if cfg.DeliverSubject != "" {
		return api.ErrPriorityGroupWithPush
	}
	if len(cfg.PriorityGroups) == 0 {
		return api.ErrPriorityPolicyWithoutGroup
	}
	for _, g := range cfg.PriorityGroups {
		if g == "" {
			return api.ErrPriorityGroupEmpty
		}
		if !ValidGroup(g) {
			return api.ErrPriorityGroupInvalid
		}
	}
	return nil
}

// ValidGroup tells whether a string can be the name of a priority group.
func ValidGroup(name string) bool {
	if name == "" || len(name) > groupLenMax {
		return false
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("/_=-", r):
		default:
			return false
		}
	}
	return true
}

// CheckAction refuses a create request whose action does not fit what is there; same is asked only
// if something is.
func CheckAction(action api.ConsumerAction, exists bool, same func() bool) *api.Error {
	switch {
	case action == api.ActionUpdate && !exists:
		return api.ErrConsumerDoesNotExist
	case action == api.ActionCreate && exists && !same():
		return api.ErrConsumerAlreadyExists
	}
	return nil
}

// SameConfig tells whether two normalised configurations ask for the same consumer.
func SameConfig(a, b *api.ConsumerConfig) bool {
	x, y := *a, *b
	if !sameTime(x.OptStartTime, y.OptStartTime) || !sameTime(x.PauseUntil, y.PauseUntil) ||
		!maps.Equal(x.Metadata, y.Metadata) || !slices.Equal(x.BackOff, y.BackOff) ||
		!slices.Equal(x.FilterSubjects, y.FilterSubjects) || !slices.Equal(x.PriorityGroups, y.PriorityGroups) {
		return false
	}
	for _, c := range []*api.ConsumerConfig{&x, &y} {
		c.OptStartTime, c.PauseUntil, c.Metadata = nil, nil, nil
		c.BackOff, c.FilterSubjects, c.PriorityGroups = nil, nil, nil
	}
	return reflect.DeepEqual(x, y)
}

func sameTime(a, b *time.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}

// CheckUpdate refuses a change of what can not change while a consumer exists.
func CheckUpdate(old, cfg *api.ConsumerConfig) *api.Error {
	no := func(what string) *api.Error { return api.ErrConsumerCreate.With(what) }
	switch {
	case old.DeliverPolicy != cfg.DeliverPolicy:
		return no("deliver policy can not be updated")
	case old.MemoryStorage != cfg.MemoryStorage:
		return no("storage type can not be updated")
	case old.Direct != cfg.Direct:
		return no("direct can not be updated")
	case old.Sourcing != cfg.Sourcing:
		return no("sourcing can not be updated")
	case old.OptStartSeq != cfg.OptStartSeq:
		return no("start sequence can not be updated")
	case !sameTime(old.OptStartTime, cfg.OptStartTime):
		return no("start time can not be updated")
	case old.AckPolicy != cfg.AckPolicy:
		return no("ack policy can not be updated")
	case old.ReplayPolicy != cfg.ReplayPolicy:
		return no("replay policy can not be updated")
	case old.IdleHeartbeat != cfg.IdleHeartbeat:
		return no("heart beats can not be updated")
	case old.FlowControl != cfg.FlowControl:
		return no("flow control can not be updated")
	case old.DeliverSubject == "" && cfg.DeliverSubject != "":
		return no("can not update pull consumer to push based")
	case old.DeliverSubject != "" && cfg.DeliverSubject == "":
		return no("can not update push consumer to pull based")
	case old.MaxWaiting != cfg.MaxWaiting:
		return no("max waiting can not be updated")
	}
	return nil
}
