using System.Text;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>The page of settings says what the settings say.</summary>
public class SettingsPageTests
{
    /// <summary>Set to 1, the test writes the page instead of comparing it.</summary>
    private const string UpdateVariable = "HBN_UPDATE_DOCS";

    [Fact]
    public void Page_IsMadeOfTheSettings()
    {
        string path = RepoPaths.InRepo("docs/settings.md");
        string page = Page();
        if (Environment.GetEnvironmentVariable(UpdateVariable) == "1")
        {
            File.WriteAllText(path, page);
        }

        Assert.True(File.Exists(path) && File.ReadAllText(path) == page, $"{path} is not what TrainingSettings.All says; run this test with {UpdateVariable}=1 to write it.");
    }

    private static string Page()
    {
        var text = new StringBuilder("""
            # Settings

            Every setting of a run, its default and what it does. A flag of `hpcbn train` has the same name (`--learning-rate 0.0075`), as has the key of a YAML file
            (`learning-rate: 0.0075`). [How recipes, files and flags are laid over one another](cli.md#settings). This page is written by a test from the settings themselves.

            Runs with equal settings but for those marked * are continuations of one another: `hpcbn train --resume auto` finds the newest of them.

            """.ReplaceLineEndings("\n"));
        foreach (IGrouping<SettingGroup, Setting> group in TrainingSettings.All.GroupBy(s => s.Group))
        {
            text.Append("\n## ").Append(group.Key).Append("\n\n| setting | default | meaning |\n|---|---|---|\n");
            foreach (Setting setting in group)
            {
                string value = setting.Get(TrainingSettings.Defaults);
                string choices = setting.Choices.Count > 0 ? $" One of {string.Join(", ", setting.Choices.Select(c => $"`{c}`"))}." : "";
                string aliases = setting.Aliases.Count > 0 ? $" Also {string.Join(", ", setting.Aliases.Select(a => $"`{a}`"))}." : "";
                text.Append("| `").Append(setting.Name).Append('`').Append(setting.DecidesNumbers ? "" : " *").Append(" | ").Append(value.Length > 0 ? $"`{value}`" : "")
                    .Append(" | ").Append(setting.Help.Replace("|", "\\|", StringComparison.Ordinal)).Append('.').Append(choices).Append(aliases).Append(" |\n");
            }
        }

        return text.ToString();
    }
}
