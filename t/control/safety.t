# What no request may lose: a change that is sent twice is made once, two admins who
# change one object lose nothing silently, every change is in the audit log with its
# author and without secrets, and a regenerated key is the same key.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA qw(sha256_hex);
use Keytoll::Control;
use Keytoll::World;
use Test::More;

my $k = Keytoll::Control->new;
my ($s, $j, $h);
sub idem { return (headers => { 'Idempotency-Key' => $_[0] }, @_[ 1 .. $#_ ]) }

# --- Idempotency-Key

($s, $j) = $k->post('/key/generate', { max_budget => 1 }, idem('once'));
is $s, 200, 'a key is made';
my $first = $j->{key};
($s, $j, $h) = $k->post('/key/generate', { max_budget => 1 }, idem('once'));
is_deeply [ $s, $j->{key} ], [ 200, $first ], 'the same request with the same key answers the same';
is $h->{'idempotent-replayed'}, 'true', 'and says so';
is $k->sql('SELECT count(*) FROM keys'), 1, 'nothing was made twice';
($s, $j) = $k->post('/key/generate', { max_budget => 2 }, idem('once'));
is_deeply [ $s, $j->{error}{type} ], [ 422, 'idempotency_error' ], 'another request with that key is refused';
my $other = $k->post('/key/generate', {}) && $k->raw;
($s) = $k->post('/user/new', { user_id => 'u1', user_role => 'internal_user' });
my ($uk) = map { $_->{key} } (($k->post('/key/generate', { user_id => 'u1' }))[1]);
($s, $j) = $k->post('/key/generate', { max_budget => 1 }, idem('once', key => $uk));
is $s, 200, 'the key of one caller says nothing to another';
isnt $j->{key}, $first, 'and shows him nothing';
($s) = $k->post('/key/generate', { max_budget => -1 }, idem('bad'));
is $s, 400, 'a request that fails';
($s) = $k->post('/key/generate', { max_budget => 3 }, idem('bad'));
is $s, 200, 'leaves its key free';
($s) = $k->post('/key/generate', {}, idem('x' x 256));
is $s, 400, 'a key that is too long';
unlike $k->sql('SELECT answer FROM idempotency'), qr/sk-/, 'kept answers are sealed';
$k->sql("UPDATE idempotency SET answer = NULL");
($s, $j) = $k->post('/key/generate', { max_budget => 1 }, idem('once'));
is $s, 409, 'without its answer it is not carried out again either';
like $j->{error}{message}, qr/has taken effect/, 'and says so';

my @pids;
for my $n (1 .. 8) {
    my $pid = fork // die;
    if (!$pid) {
        delete $k->{http};
        my ($st, $b) = $k->post('/team/new', { team_alias => 'race' }, idem('race'));
        open my $fh, '>', "$k->{dir}/race.$n"; print $fh "$st " . ($b->{team_id} // ''); close $fh;
        POSIX::_exit(0);
    }
    push @pids, $pid;
}
waitpid $_, 0 for @pids;
is $k->sql("SELECT count(*) FROM teams WHERE team_alias = 'race'"), 1, 'eight at once make one team';
my %got = map { $k->slurp("$k->{dir}/race.$_") => 1 } 1 .. 8;
my @ok = grep { /^200/ } keys %got;
is scalar(@ok), 1, 'who is answered is answered the same' or diag join ' | ', keys %got;
is_deeply [ grep { !/^(?:200|409)/ } keys %got ], [], 'the others are told to ask again';

# --- two admins

($s, $j) = $k->post('/key/generate', { metadata => { a => 1 } });
my $key = $j->{key};
($s, $j, $h) = $k->get("/key/info?key=$key");
my $etag = $h->{etag};
like $etag, qr/^"\d+"$/, 'an object has an ETag';
($s) = $k->post('/key/update', { key => $key, tpm_limit => 10 }, headers => { 'If-Match' => $etag });
is $s, 200, 'who has seen the newest may change it';
($s, $j) = $k->post('/key/update', { key => $key, metadata => { b => 2 } }, headers => { 'If-Match' => $etag });
is_deeply [ $s, $j->{error}{type} ], [ 412, 'precondition_failed' ], 'who has not is told';
($s, $j) = $k->get("/key/info?key=$key");
is_deeply $j->{info}{metadata}, { a => 1 }, 'and has changed nothing';
($s, $j, $h) = $k->get('/team/info?team_id=' . $k->sql("SELECT team_id FROM teams WHERE team_alias = 'race'"));
my $team = $j->{team_id};
($s) = $k->post('/team/update', { team_id => $team, tpm_limit => 5 }, headers => { 'If-Match' => $h->{etag} });
is $s, 200, 'teams too';
($s) = $k->post('/team/update', { team_id => $team, tpm_limit => 6 }, headers => { 'If-Match' => $h->{etag} });
is $s, 412, 'and again not twice';

# without If-Match: fields that others do not send are kept
@pids = ();
for my $n (1 .. 6) {
    my $pid = fork // die;
    if (!$pid) {
        delete $k->{http};
        for my $i (1 .. 10) {
            $k->post('/key/update', { key => $key, $n <= 2 ? (tpm_limit => 1000 + $i) : $n <= 4 ? (rpm_limit => 50 + $i) : (tags => ["t$i"]) });
        }
        POSIX::_exit(0);
    }
    push @pids, $pid;
}
waitpid $_, 0 for @pids;
($s, $j) = $k->get("/key/info?key=$key");
is_deeply [ @{ $j->{info} }{qw(tpm_limit rpm_limit)}, $j->{info}{metadata} ], [ 1010, 60, { a => 1, tags => ['t10'] } ], 'sixty updates of three fields by six clients: none is lost';
is $k->sql("SELECT count(*) FROM audit WHERE action = 'updated' AND object_id = '" . sha256_hex($key) . "'"), 61, 'each is in the audit log';
is $k->sql("SELECT count(*) FROM (SELECT before, lag(after) OVER (ORDER BY id) AS was FROM audit WHERE action = 'updated' AND object_id = '" . sha256_hex($key)
    . "') x WHERE was IS NOT NULL AND before - '{updated_at,spend}'::text[] <> was - '{updated_at,spend}'::text[]"), 0, 'each began where the one before ended';

# --- audit

($s, $j) = $k->post('/user/update', { user_id => 'u1', password => 'Very-Secret-12345' });
is $s, 200, 'a password is set';
($s, $j) = $k->post('/user/update', { user_id => 'u1', password => 'weak' });
is $s, 400, 'a weak one is not';
($s, $j) = $k->post('/model/new', { model_name => 'gpt-x', litellm_params => { model => 'openai/gpt-4o', api_key => 'sk-provider-secret-1' } });
is $s, 200, 'a model with a secret';
($s, $j) = $k->get('/audit?page_size=100');
is $s, 200, 'the audit log';
is_deeply [ sort keys %{ $j->{audit_logs}[0] } ], [ sort qw(id updated_at changed_by actor changed_by_api_key action table_name object_id before_value updated_values) ], 'has rows as LiteLLM has them';
($s, $j) = $k->get("/audit/$j->{audit_logs}[0]{id}");
is $s, 200, 'one of them';
($s, $j) = $k->get('/audit?table_name=LiteLLM_TeamTable&action=created');
is $j->{total}, 1, 'filtered';
($s, $j) = $k->get('/audit?start_date=2026-13-45');
is $s, 400, 'a date that is none';
($s, $j) = $k->get('/audit', key => $uk);
is $s, 401, 'not for everybody';
$k->post('/key/update', { key => $key, tpm_limit => 1 }, headers => { 'litellm-changed-by' => 'carol' });
($s, $j) = $k->get('/audit?page_size=1');
is $j->{audit_logs}[0]{changed_by}, 'carol', 'with who says he changed it';
my $all = $k->sql("SELECT coalesce(before::text, '') || coalesce(after::text, '') FROM audit") . $k->logs;
unlike $all, qr/\Q$_\E/, 'no secret in it or in the log' for $first, $key, 'Very-Secret', 'sk-provider-secret';
$k->sql("DELETE FROM audit");
isnt $k->sql('SELECT count(*) FROM audit'), 0, 'nobody deletes from it';

# --- a regenerated key is the same key

my $old = ($k->post('/key/generate', { max_budget => 1, key_alias => 'rot', spend => 0.25, model_rpm_limit => { 'gpt-4o' => 3 }, team_id => $team }))[1]{key};
my $ent = 'key:' . sha256_hex($old);
($s, $j) = $k->post('/key/regenerate', { key => $old, max_budget => 2 });
is $s, 200, 'regenerated';
my $new = $j->{key};
isnt $new, $old, 'has another secret';
is_deeply [ @$j{qw(key_alias max_budget token token_id)} ], [ 'rot', 2, (sha256_hex($new)) x 2 ], 'the same alias, what was changed, the new hash';
($s, $j) = $k->get("/key/info?key=$new");
is_deeply [ $s, $j->{info}{spend} ], [ 200, 0.25 ], 'and the same spend';
($s) = $k->get("/key/info?key=$old");
is $s, 404, 'the old one is unknown';
my $thin = $k->state('key:' . sha256_hex($new));
ok $thin, 'Redis knows the new one';
is_deeply [ @{ $k->state($ent) }{qw(used limit)} ], [ 250000000, 2000000000 ], 'and the meter that it stands before';
($s, $j) = $k->post("/key/$new/regenerate", { grace_period => '1h' });
my $third = $j->{key};
is $s, 200, 'once more, with a grace period, by the path';
is $k->sql('SELECT count(*) FROM key_tokens WHERE expires IS NULL'), 1, 'one hash is current';
is $k->sql("SELECT hash FROM key_tokens WHERE expires > now() + interval '59 minutes'"), sha256_hex($new), 'the one before works on';
($s) = $k->get("/key/info?key=$new");
is $s, 200, 'in the grace period';
$k->sql("UPDATE key_tokens SET expires = now() - interval '1 second' WHERE expires IS NOT NULL");
($s) = $k->get("/key/info?key=$new");
is $s, 404, 'and no longer';
($s, $j) = $k->post('/key/update', { key => $third, rpm_limit => 9 });
is $s, 200, 'it can be changed';
my $rpm = $k->state('key:' . sha256_hex($old));
is $rpm->{rpm_limit}, 9, 'which the meter follows';
($s, $j) = $k->post('/key/block', { key => $third });
is $k->state('key:' . sha256_hex($third))->{blocked}, 1, 'a block stands at the new hash';
($s, $j) = $k->post("/key/$third/reset_spend", { reset_to => 0 });
is_deeply [ $s, $j->{spend}, $j->{previous_spend} ], [ 200, 0, 0.25 ], 'its spend can be reset';
($s, $j) = $k->post("/key/$third/reset_spend", { reset_to => 5 });
is $s, 400, 'not upwards';
($s, $j) = $k->post('/key/delete', { keys => [$third] });
is $s, 200, 'deleted';
is_deeply [ map { $k->state('key:' . sha256_hex($_)) } $old, $third ], [ undef, undef ], 'neither its first hash nor its last is left';
ok $k->until(sub { !$k->state('key:' . sha256_hex($new)) }, 10), 'the one that expired goes with the next sweep';
($s, $j) = $k->post('/key/regenerate', { key => 'sk-nope-0123456789abcdef' });
is $s, 404, 'an unknown one';
($s, $j) = $k->post('/key/regenerate', { key => $key, new_key => 'nope' });
is $s, 400, 'a new key of a wrong form';
($s, $j) = $k->post('/key/generate', { duration => '1s' });
my $short = $j->{key};
sleep 2;
($s, $j) = $k->post('/key/regenerate', { key => $short });
is $s, 400, 'one that has expired wants a new end';
($s, $j) = $k->post('/key/regenerate', { key => $short, duration => '1h' });
is $s, 200, 'and gets it';

is $k->sql("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"), 0, 'no transaction is left open';
unlike $k->logs, qr/did not check whose/, 'no handler forgot to ask whose object it is';
done_testing;
