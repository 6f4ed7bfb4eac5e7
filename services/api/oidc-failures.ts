/**
 * Why a log-in by the identity provider ended without a session. The browser is sent back to the
 * log-in page with one of these codes and a reference, never with a text: a link that somebody made
 * up can't put words on our page. The log line with the same reference says the rest.
 *
 * Imports nothing: the console reads it too.
 */
export interface LogInFailure {
  readonly title: string;
  readonly detail: string;
}

const ownPassword = "Local users can still log in with their password.";

export const logInFailures = {
  "provider-off": {
    title: "Log-in by an identity provider is not set up.",
    detail: "Log in with your user name and password.",
  },
  "provider-unreachable": {
    title: "The identity provider does not answer.",
    detail: `Try again in a minute. ${ownPassword}`,
  },
  "provider-misconfigured": {
    title: "The identity provider and this node are not set up to fit.",
    detail: `An administrator finds the reason in the settings, by “Test”. ${ownPassword}`,
  },
  "provider-refused": {
    title: "The identity provider refused the log-in.",
    detail: "It was cancelled there, or your account there may not use this node.",
  },
  "attempt-unknown": {
    title: "This log-in has ended, or was not started in this browser.",
    detail: "Start again from this page. A log-in must be finished within ten minutes.",
  },
  "answer-untrusted": {
    title: "The identity provider’s answer could not be trusted. Nobody was logged in.",
    detail: "Try again once; if it happens again, tell an administrator the reference.",
  },
  "answer-expired": {
    title: "The identity provider’s answer is out of date. Nobody was logged in.",
    detail: "The clocks of this node and of the provider may differ: compare them, then try again.",
  },
  "not-allowed": {
    title: "Your account at the identity provider may not use this node.",
    detail: "Ask an administrator to let your group or mail domain in.",
  },
  "no-role": {
    title: "None of your groups has a role on this node.",
    detail: "Ask an administrator to give one of your groups a role.",
  },
  "name-taken": {
    title: "A local user has the same name as you, and is not linked to your account there.",
    detail: "Log in with the local password and link the two, or ask an administrator.",
  },
  "user-unknown": {
    title: "There is no user for you on this node, and none is made at the first log-in.",
    detail: "Ask an administrator.",
  },
  "user-disabled": {
    title: "Your user on this node is disabled.",
    detail: "Ask an administrator.",
  },
  "link-refused": {
    title: "The two accounts were not linked.",
    detail: "Another user is linked to that account already, or your session here has ended.",
  },
  busy: {
    title: "Too many log-ins at once.",
    detail: "Wait a few seconds, then try again.",
  },
  internal: {
    title: "The log-in failed on this node.",
    detail: `An administrator finds the reason in the log, by the reference. ${ownPassword}`,
  },
} as const satisfies Record<string, LogInFailure>;

export type LogInFailureCode = keyof typeof logInFailures;

/** Of a log line and of what the user is shown: eight of a-z and 2-7. */
export const referencePattern = /^[a-z2-7]{8}$/;
