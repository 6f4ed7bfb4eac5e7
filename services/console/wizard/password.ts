/** What a person is told about a new password. Pure. */

/** The least that the API takes too. */
export const shortestPassword = 8;

/** Why it can't be used; undefined if it can. */
export function passwordProblem(password: string): string | undefined {
  if (password === "") return "A password is needed.";
  if (!/^[ -~]*$/.test(password)) {
    return "Use letters, digits and signs of a US keyboard only: other characters differ from terminal to terminal.";
  }
  if (password.length < shortestPassword) {
    return `${shortestPassword - password.length} more characters: a password has at least ${shortestPassword}.`;
  }
  return undefined;
}

const common = /password|passwort|keelson|admin|letmein|qwert|12345|abcd|welcome|geheim/i;

/** A rough measure, for words on a screen: length counts most, kinds of characters some. */
export function passwordStrength(password: string): "weak" | "fair" | "good" | "strong" {
  const kinds = [/[a-z]/, /[A-Z]/, /[0-9]/, /[^a-zA-Z0-9]/].filter((kind) => kind.test(password));
  const different = new Set(password).size;
  const points =
    Math.min(password.length, different * 2) + 2 * kinds.length - (common.test(password) ? 8 : 0);
  if (points < 12) return "weak";
  if (points < 17) return "fair";
  return points < 22 ? "good" : "strong";
}
