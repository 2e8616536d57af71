import { ConfigError } from "../config";
import { describeError } from "../errors";
import { Page } from "./page";

/** Why the page cannot start, and what to do. */
export function StartError({ error, cognitoAddress }: { error: unknown; cognitoAddress: string }) {
  return (
    <Page>
      <div className="card">
        {error instanceof ConfigError ? (
          <ConfigProblems problems={error.problems} />
        ) : (
          <CognitoProblem text={describeError(error, cognitoAddress).text} />
        )}
        <button type="button" className="primary" onClick={() => location.reload()}>
          Try again
        </button>
      </div>
    </Page>
  );
}

function ConfigProblems({ problems }: { problems: readonly string[] }) {
  return (
    <>
      <h2>The page's settings are not usable</h2>
      <div role="alert">
        <ul className="problems">
          {problems.map((problem) => (
            <li key={problem}>{problem}</li>
          ))}
        </ul>
      </div>
      <p className="intro">The settings are in config.json, next to this page:</p>
      <ul className="intro">
        <li>
          Locally, start <code>make up</code> and open the address that it prints.
        </li>
        <li>
          On AWS, run <code>npx cdk deploy --outputs-file outputs.json</code>, then <code>make page-config</code>.
        </li>
      </ul>
    </>
  );
}

function CognitoProblem({ text }: { text: string }) {
  return (
    <>
      <h2>The page cannot start</h2>
      <p role="alert" className="error">
        {text}
      </p>
    </>
  );
}
